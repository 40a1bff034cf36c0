"""The demo's page: its scales, that nothing in it can run or load, and how a real browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.report.demo_page import (
    DemoPage,
    Message,
    RecoveredPayload,
    ServerRow,
    TokenCell,
    axis_position,
    render,
)
from ullage.report.words import percent

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def page(text: str = " peace") -> DemoPage:
    cells = (TokenCell(text, 0.0, text), TokenCell(text, 0.5, " war"), TokenCell(text, None, " war"))
    row = ServerRow(
        name="int4", story="weights rounded", declared="bfloat16", verdict="fail",
        reasons=(f"because {text}",),
        audited_tokens=2000, audited_records=20, mismatches=200, rate=0.1, low=0.09, high=0.11, limit=0.02,
        noticed_after=35, leaked_bits=0, message=Message(3, f"prompt {text}", cells),
    )  # fmt: skip
    payload = RecoveredPayload(4096, 4000, 2.5, 2, 0, text)
    return DemoPage(
        title="Servers", model="m", model_digest="sha256:" + "0" * 64, created="now", seconds=60,
        machine="2 cores", rows=(row,), payload=payload, not_covered=("length",),
        next_commands=(("Audit", "ullage audit"),),
    )  # fmt: skip


class _Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_axis_is_monotone_and_stays_on_the_picture(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= axis_position(low) <= axis_position(high) <= 100


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "0 %"),
        (0.00013, "0.013 %"),
        (0.0044, "0.44 %"),
        (0.12, "12 %"),
        (1, "100 %"),
        (1e308, "1.0e+308 times all"),
    ],
)
def test_percent_has_two_digits(rate: float, text: str) -> None:
    assert percent(rate) == text


@given(st.floats(0, 50))
def test_shades_follow_the_margin(margin: float) -> None:
    cell = TokenCell("a", margin, "b")
    assert (cell.shade == 0) == (margin == 0)
    assert cell.shade <= TokenCell("a", None, "b").shade == 5
    assert cell.shade <= TokenCell("a", margin + 1, "b").shade


@given(st.text())
def test_nothing_that_a_server_said_becomes_markup(text: str) -> None:
    hostile = text + "<script>alert(1)</script><img src=x onerror=alert(1)>"
    elements = _Elements(render(page(hostile)))
    tags = {tag for tag, _ in elements.tags}
    assert not tags & {"script", "img", "iframe", "link", "object"}
    assert not any(name.startswith("on") for _, attributes in elements.tags for name in attributes)


def test_the_page_loads_nothing() -> None:
    text = render(page())
    assert "Content-Security-Policy" in text
    assert not re.search(r"(src|href)\s*=", text)
    assert "url(" not in text


@pytest.mark.browser
@pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed: the page was not opened in a browser"
)
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_the_page(tmp_path: Path, width: int) -> None:
    """Renders at a desk's and a phone's width: the picture has content and the page does not overflow."""
    assert CHROMIUM is not None
    file = tmp_path / "report.html"
    probe = (
        "<script>document.title = [scrollWidthOf(), document.querySelectorAll('tbody tr').length].join(' ');"
    )
    probe += "function scrollWidthOf() { return document.documentElement.scrollWidth; }</script>"
    text = render(page())
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)  # for the probe alone
    file.write_text(text.replace("</body>", f"{probe}</body>"), "utf-8")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-quic", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900",
    ]  # fmt: skip
    picture = tmp_path / "picture.png"
    shown = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    subprocess.run(
        [CHROMIUM, *flags, f"--screenshot={picture}", file.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    title = re.search(r"<title>(\d+) (\d+)</title>", shown.stdout)
    assert title is not None, shown.stdout[:500]
    assert int(title.group(1)) <= max(width, 500)  # headless Chromium has no narrower window than 500
    assert int(title.group(2)) == 2
    assert picture.stat().st_size > 20_000
