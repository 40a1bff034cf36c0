"""Text from tokens that arrive one by one: never half a character, never a character taken back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_HOLD = 32
"""Tokens that are held back at most while a character is incomplete. Its bytes lie closer together, unless
tokens without text are among them. Without a limit a server could have all that it ever sent decoded again
for each further token."""
_CHARACTER_BYTES = 4
_BYTE_TOKEN = re.compile(r"^<0x[0-9A-Fa-f]{2}>$")


class TokenDecoder(Protocol):
    """What the stream decoder needs of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def token(self, token_id: int) -> str | None: ...


class StreamDecoder:
    """Turns token ids into text deltas; the deltas joined are `tokenizer.decode` of all ids.

    Two things hold text back. A character may be spread over several tokens: until it is complete,
    decoding ends in U+FFFD. And a run of byte-fallback tokens (`<0x..>`) is decoded as a whole, so a
    later byte can still spoil an earlier one. Only a window of recent tokens is decoded again, because
    a decoder may treat the first token of a text differently from the others.
    """

    def __init__(self, tokenizer: TokenDecoder) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._settled = 0  # how many tokens of the window are released already
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """All text released so far."""
        return "".join(self._pieces)

    def push(self, token_id: int) -> str:
        """The text that this token completes, possibly none."""
        return self.extend((token_id,))

    def extend(self, ids: Iterable[int]) -> str:
        """The text that these tokens complete, possibly none."""
        self._window.extend(ids)
        if not self._window or _BYTE_TOKEN.match(self._tokenizer.token(self._window[-1]) or ""):
            return ""
        text = self._tokenizer.decode(self._window)
        if text.endswith(_REPLACEMENT):
            return self._release_old(text)
        return self._release(text)

    def finish(self) -> str:
        """What was held back, with U+FFFD for characters that stayed incomplete. Call once, at the end."""
        return self._release(self._tokenizer.decode(self._window)) if self._window else ""

    def _release_old(self, text: str) -> str:
        """What lies too far back to belong to a character that is still to be completed."""
        cut = len(self._window) - _HOLD
        if cut < self._settled + _HOLD:  # seldom, so that a token is not looked at for each further one
            return ""
        for end in range(cut, cut - _CHARACTER_BYTES, -1):
            part = self._tokenizer.decode(self._window[:end])
            if text.startswith(part):  # not within a character
                settled, rest = self._settled, self._window[end:]
                self._window = self._window[:end]
                delta = self._release(part)
                if not delta:
                    self._window = self._window[settled:]
                    self._settled = end - settled
                self._window += rest
                return delta
        return ""

    def _release(self, text: str) -> str:
        before = self._tokenizer.decode(self._window[: self._settled])
        delta = text[len(before) :]
        if delta:
            self._window = self._window[self._settled :]
            self._settled = len(self._window)
            self._pieces.append(delta)
        return delta
