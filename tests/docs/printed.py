"""The commands that the documentation prints, as a reader would copy them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_START = re.compile(r"(?:^|(?<=[\s(`]))ullage\s+(?=[a-z])")
_END = re.compile(r"'\s|\s#|\s{3,}|\s&&|;|\s>|`|…\s*$|\)\s|\s\|\s")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_INLINE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Printed:
    """`ullage WORDS OPTIONS` where it stands. `words` are at most the first two, alternatives split."""

    page: str
    line: int
    text: str
    words: tuple[str, ...]
    options: tuple[str, ...]


def pages() -> list[Path]:
    """The README and every page that somebody wrote; the reference is made from the parsers themselves."""
    written = set((ROOT / "docs").rglob("*.md")) - set((ROOT / "docs" / "reference").rglob("*.md"))
    return [ROOT / "README.md", *sorted(written)]


def printed() -> Iterator[Printed]:
    """Every command on every page."""
    for page in pages():
        name = str(page.relative_to(ROOT))
        for number, text in _code(page.read_text("utf-8")):
            for found in _commands(text):
                words = found.split()
                yield Printed(name, number, found, tuple(words[:2]), tuple(_OPTION.findall(found)))


def other_lines() -> Iterator[tuple[str, int, str]]:
    """Every piece of code on every page."""
    for page in pages():
        for number, text in _code(page.read_text("utf-8")):
            yield str(page.relative_to(ROOT)), number, text


def _code(text: str) -> Iterator[tuple[int, str]]:
    """Lines of code blocks, continued ones joined, and inline code, with the number of their first line."""
    fenced, held, held_at = False, "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    ") or held:
            held_at = held_at or number
            held += line.strip().removeprefix("$ ")
            if held.endswith("\\"):
                held = held[:-1]
                continue
            yield held_at, held
            held, held_at = "", 0
        else:
            yield from ((number, code) for code in _INLINE.findall(line))


def _commands(text: str) -> Iterator[str]:
    for start in _START.finditer(text):
        rest = text[start.end() :]
        end = _END.search(rest)
        yield rest[: end.start()] if end else rest
