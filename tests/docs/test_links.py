"""Every link of the repository's own pages leads to a file that is there, and to a heading that it has.

mkdocs checks the same of `docs/` when the site is built; this needs no site, and sees the README too.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.printed import ROOT

PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        ROOT / "src" / "ullage" / "model" / "weights" / "README.md",
    }
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ELSEWHERE = ("https://", "http://", "mailto:")


def prose(text: str) -> str:
    """The page without its code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^(```|    ).*?(?:^```$|\n)", "\n", text, flags=re.M))


@cache
def anchors(page: Path) -> frozenset[str]:
    """The names that its headings give."""
    found = re.findall(r"^#+ +(.+?)\s*$", page.read_text("utf-8"), re.M)
    return frozenset(
        re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in found
    )


def broken(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    wrong = []
    for link in _LINK.findall(prose(page.read_text("utf-8"))):
        if link.startswith(_ELSEWHERE):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            wrong.append(f"{link}: there is no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            wrong.append(f"{link}: there is no such heading")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One: two\n[a](#one-two) [b](#three) [c](gone.md) [d](https://x.example) `[e](f)`\n")
    assert [line.partition(":")[0] for line in broken(page)] == ["#three", "gone.md"]
