"""Padding that every client skips: spaces after a JSON body, comments between server-sent events."""

from __future__ import annotations

from typing import Final

_LEAST_COMMENT: Final = 4  # ":" and an empty line


def comment(size: int) -> bytes:
    """A server-sent comment of exactly `size` bytes, at least 4 (HTML standard, section 9.2.6)."""
    if size < _LEAST_COMMENT:
        raise ValueError(f"a comment has at least {_LEAST_COMMENT} bytes")
    return b":" + b"." * (size - 3) + b"\n\n"


def pad_events(data: bytes, multiple: int) -> bytes:
    """The same events, after a comment, so that their size is the next multiple (at least one).

    The comment goes first, because a client may stop reading at `[DONE]`.
    """
    missing = -len(data) % multiple if data else multiple
    while 0 < missing < _LEAST_COMMENT:
        missing += multiple
    return comment(missing) + data if missing else data


def pad_body(body: bytes, multiple: int) -> bytes:
    """A JSON body with spaces after it, which RFC 8259 allows, up to the next multiple."""
    return body + b" " * (-len(body) % multiple)
