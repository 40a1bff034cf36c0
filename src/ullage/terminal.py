"""Text that others wrote, as it may go to a terminal, which would obey what it finds in it."""

from __future__ import annotations


def plain(text: str, instead: str = "·") -> str:
    """The text with every sign that is not printed replaced: control sequences, and marks that turn the
    direction of what follows. Line feeds stay."""
    return "".join(sign if sign.isprintable() or sign == "\n" else instead for sign in text)


def plain_line(text: str, instead: str = "·") -> str:
    """The same on one line: who wrote it begins no line of ours."""
    return plain(text.replace("\n", instead), instead)
