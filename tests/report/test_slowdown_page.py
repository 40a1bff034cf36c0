"""The slowdown's page: self-contained, safe, and shown by a real browser at two widths, sliders included."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.axe import axe_source
from tests.report.browser import CHROMIUM, MISSING, Browser, browser
from ullage.report.slowdown_page import axis_position, render
from ullage.report.slowdown_summary import share, summarise
from ullage.report.words import days, factor, number
from ullage.slowdown.answer import answer
from ullage.slowdown.document import as_json
from ullage.slowdown.scenarios import BUILTIN

GRID = {
    "axes": [
        {"name": "dark", "label": "Dark", "start": 1, "stops": ["0 %", "5 %"]},
        {"name": "work", "label": "Work", "start": 0, "stops": ["0 %", "95 %", "99 %"]},
    ],
    "strategies": ["first", "second"],
    "cells": [[None, None, None, None, 0]] * 3 + [[1, 2, 3, 1.5, 0], [4, 5, 6, 2, 1], [7, 8, 9, 3, 0]],
    "samples": 1,
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return as_json(answer(None, samples=60))


def test_words_for_figures() -> None:
    assert (factor(None), factor(4.164), factor(1234)) == ("never", "4.16", "1,234")
    assert (days(None), days(0.23), days(2e-9), days(800)) == (
        "never",
        "5.5 hours",
        "0.00017 seconds",
        "2.19 years",
    )
    assert (number(None), number(117_951_921), number(0.05)) == ("without limit", "118 M", "0.05")
    assert axis_position(1) == 0
    assert axis_position(None) == axis_position(1e9) == 100


def test_it_loads_nothing_and_runs_one_script(document: dict[str, Any]) -> None:
    text = render(document, GRID, "now")
    assert not re.search(r"(src|href)\s*=", text)
    assert "url(" not in text
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_every_scenario_and_source_is_on_it(document: dict[str, Any]) -> None:
    text = html.unescape(render(document, GRID, "now"))
    for scenario in BUILTIN:
        assert scenario.name in text
    for entry in document["assumptions"].values():
        assert entry["meaning"] in text
    assert "Taken as unconstrained" in text


def test_a_scenario_s_name_cannot_become_markup(document: dict[str, Any]) -> None:
    hostile = json.loads(json.dumps(document).replace("all bars together", "</script><img src=x onerror=1>"))
    grid = {**GRID, "strategies": ["</script><script>alert(1)</script>", "second"]}
    text = render(hostile, grid, "now")
    assert "<img" not in text
    assert "<script>alert" not in text


def test_the_first_screen_in_plain_words(document: dict[str, Any]) -> None:
    found = summarise(document)
    assert found.answer.startswith("About ")
    assert "nothing is hidden" in found.story.lower()
    assert found.verdict == "No: none of the five bars is enough alone."
    assert {need.label for need in found.needs} == {"dark share", "output that accomplices order"}
    assert all(need.needed.startswith("at most") for need in found.needs)
    assert not found.reached
    for part in ("100 K bytes a second", "0.01 % of the output", "every 5 minutes", "95 % of the work"):
        assert part in found.verified
    text = html.unescape(render(document, GRID, "now"))
    first = text[: text.index("<main>")]
    for part in (found.answer, found.story, found.verified, found.example, found.needs[0].needed):
        assert part in first


def test_the_first_screen_of_other_answers(document: dict[str, Any]) -> None:
    """Nothing slower, never ending, reached: each has its own words."""

    def changed(middle: float | None, **constraints: float | None) -> dict[str, Any]:
        other: dict[str, Any] = json.loads(json.dumps(document))
        other["detail"]["throughput_slowdown"]["p50"] = middle
        for name, value in constraints.items():
            other["constraints"][name]["value"] = value
        return other

    none = summarise(changed(1.0))
    assert (none.answer, none.example, none.reached) == ("Not slower", "", False)
    never = summarise(changed(None))
    assert (never.answer, never.reached) == ("It would never end", True)
    assert summarise(changed(40.0)).example == "A run of 90 days would take 9.9 years."
    open_page = changed(
        1.0, egress=4e11, covert_fraction=1.0, wipe_period=None, accounted_time=0, accounted_operations=0,
        resident_memory=0,
    )  # fmt: skip
    assert summarise(open_page).verified == "nothing verified"
    assert [share(value) for value in (1.0, 0.05, 0.0407, 1e-6)] == ["all", "5 %", "4.1 %", "0.0001 %"]


def test_verdicts_on_the_bars_are_counted(document: dict[str, Any]) -> None:
    other = json.loads(json.dumps(document))
    other["central_claim"][0]["verdict"] = "yes"
    assert summarise(other).verdict == "One of the five bars enough alone."
    other["central_claim"][1]["verdict"] = "cannot tell"
    assert summarise(other).verdict == "One of the five bars enough alone; for one it cannot be told."
    assert summarise({**other, "central_claim": []}).verdict == ""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
@pytest.mark.parametrize("width", [390, 1440])
def test_a_browser_shows_it_and_the_sliders_answer(
    tmp_path: Path, document: dict[str, Any], chromium: Browser, width: int
) -> None:
    """On a phone and at a desk: no overflow, nothing loaded, and a slider moved by key shows its cell."""
    page = tmp_path / "page.html"
    page.write_text(render(document, GRID, "now"), "utf-8")
    chromium.open(page, width)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    factor_shown = "document.getElementById('answer-factor').textContent"
    assert chromium.evaluate(factor_shown) == "2 times slower"
    chromium.evaluate("document.getElementById('axis-work').focus()")
    chromium.press("ArrowRight", 39)
    chromium.wait_for(f"{factor_shown} === '5 times slower'")
    assert chromium.evaluate("document.getElementById('answer-best').textContent") == "second"
    assert chromium.evaluate("document.getElementById('axis-work').getAttribute('aria-valuetext')") == "95 %"
    assert chromium.complaints == []


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
@pytest.mark.parametrize(
    ("width", "dark"), [(390, False), (1440, False), pytest.param(1440, True, marks=pytest.mark.slow)]
)
def test_axe_finds_nothing_serious(
    tmp_path: Path, document: dict[str, Any], chromium: Browser, width: int, dark: bool
) -> None:
    source, problem = axe_source()
    if problem:
        pytest.skip(problem)
    page = tmp_path / "page.html"
    page.write_text(render(document, GRID, "now"), "utf-8")
    chromium.send("Page.setBypassCSP", enabled=True)
    chromium.open(page, width, dark=dark)
    chromium.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    chromium.evaluate(source + "; true")
    found = chromium.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then((all) => all.violations.map((one) => "
        "[one.impact, one.id, one.nodes[0].html.slice(0, 200), one.nodes[0].failureSummary]))"
    )
    chromium.send("Page.setBypassCSP", enabled=False)
    assert [one for one in found if one[0] in ("serious", "critical")] == []
