"""Where an output ends and which text it releases: one rule for whoever decides it or checks it.

An output ends with the first token that is end-of-text (`stop`), that completes a stop string in the text
(`stop`), or that is number `max_tokens` (`length`), in this order. Text is what a stream decoder makes of
the tokens, so an unfinished character is no text yet; at the end it becomes U+FFFD.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Literal, Protocol

from ullage.errors import MalformedError

FinishReason = Literal["stop", "length"]


class TextStream(Protocol):
    """Text of a token sequence that arrives bit by bit."""

    def extend(self, ids: Sequence[int]) -> str:
        """The text that these tokens complete, possibly none."""

    def finish(self) -> str:
        """What was held back; an unfinished character becomes U+FFFD. Called once, at the end."""


class Vocabulary(Protocol):
    """What is needed of a tokenizer."""

    @property
    def vocabulary_size(self) -> int:
        """Every token id is below it."""

    @property
    def eos_ids(self) -> Set[int]:
        """The ids that end an output."""

    def stream_decoder(self) -> TextStream:
        """A decoder for one output."""


class Transcript:
    """The output of one choice as it grows: ids, text that may be released, and the end.

    `feed` raises MalformedError for ids outside the vocabulary and for tokens after the end. Text before a
    stop string is released, the stop string is not; text that could be the beginning of one is held.
    """

    def __init__(self, tokenizer: Vocabulary, stop: Sequence[str], max_tokens: int) -> None:
        self._vocabulary_size = tokenizer.vocabulary_size
        self._eos_ids = tokenizer.eos_ids
        self._text = tokenizer.stream_decoder()
        self._stop = tuple(stop)
        self._max_tokens = max_tokens
        self._held = ""
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None

    def feed(self, ids: Sequence[int]) -> str:
        """Add tokens; returns the text that they make releasable."""
        if ids and not (min(ids) >= 0 and max(ids) < self._vocabulary_size):
            raise MalformedError("a token id outside the vocabulary")
        if not self._stop:
            return self._feed_run(ids)
        # A stop string ends the output at one certain token, so the text is looked at after each.
        return "".join([self._feed_run((token,)) for token in ids])

    def _feed_run(self, ids: Sequence[int]) -> str:
        """Add tokens that are decoded together."""
        if not ids:
            return ""
        run = ids[: self._until_end(ids)]
        if self.finish_reason is not None or len(run) < len(ids):
            raise MalformedError("tokens after the end of the output")
        self.ids.extend(run)
        ended = run[-1] in self._eos_ids
        released = self._absorb(self._text.extend(run[:-1] if ended else run))
        if self.finish_reason is None and ended:
            released += self._end("stop")
        if self.finish_reason is None and len(self.ids) == self._max_tokens:
            released += self._end("length")
        return released

    def _until_end(self, ids: Sequence[int]) -> int:
        """How many of `ids` are left before EOS, it included, or the limit ends the output."""
        room = self._max_tokens - len(self.ids)
        for count, token in enumerate(ids[:room], 1):
            if token in self._eos_ids:
                return count
        return room

    def _end(self, reason: FinishReason) -> str:
        """The last text: nothing is held any longer, though it may still complete a stop string."""
        released = self._absorb(self._text.finish())
        if self.finish_reason is None:
            self.finish_reason = reason
            released += self._held
            self._held = ""
        return released

    def _absorb(self, fresh: str) -> str:
        """Text ready for release after `fresh` arrived; sets the finish reason at a stop string."""
        if not self._stop:
            return fresh
        window = self._held + fresh
        found = [position for stop in self._stop if (position := window.find(stop)) >= 0]
        if found:
            self.finish_reason = "stop"
            self._held = ""
            return window[: min(found)]
        held = max(_overlap(window, stop) for stop in self._stop)
        self._held = window[len(window) - held :]
        return window[: len(window) - held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
