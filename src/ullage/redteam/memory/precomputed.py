"""Digests before it drops: the tags under keys of its own, given whatever is asked."""

from __future__ import annotations

import secrets

from ullage.memory.noise.noise import BLOCK_BYTES, Question
from ullage.memory.protocol.questions import Spots
from ullage.redteam.memory.cheat import MemoryCheat, MissingBlocksKeeper, agent_of


class _Precomputed(MissingBlocksKeeper):
    """Expects the key of the last question, or zeros; drops everything once it has tags."""

    _key = bytes(32)

    def _drop(self, space: int) -> None:
        blocks = self.region(space).size // BLOCK_BYTES
        question = Question(0, self._key, blocks, 256)
        missing, self.missing = self.missing, frozenset()
        self._tags = super().answer(space, question)
        self.missing = missing
        super()._drop(space)

    def answer(self, space: int, question: Question) -> list[bytes]:
        self._key = question.key
        tags = self._tags + [secrets.token_bytes(16)] * question.segments
        return tags[: question.segments]

    def spots(self, asked: Spots) -> list[bytes]:
        """It could not know which they are: what it has is the wrong tags."""
        return (self._tags * asked.segments)[: asked.segments]


PRECOMPUTED = MemoryCheat(
    "precomputed",
    "computes digests before the question, then drops the noise",
    lambda setting: agent_of(_Precomputed(setting)),
)
