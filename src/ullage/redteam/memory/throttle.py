"""Answers the first questions slowly, hoping that deadlines follow what it shows."""

from __future__ import annotations

import time

from ullage.memory.noise.noise import Question
from ullage.memory.protocol.questions import Chain, Spots
from ullage.redteam.memory.cheat import ALL_MODES, MemoryCheat, MissingBlocksKeeper, agent_of

_SHOWN_SECONDS = 0.1


class _Throttle(MissingBlocksKeeper):
    _shown = 0

    def answer(self, space: int, question: Question) -> list[bytes]:
        began = time.monotonic()
        tags = super().answer(space, question)
        if question.round_number < 2:
            time.sleep(max(0.0, _SHOWN_SECONDS - (time.monotonic() - began)))
        return tags

    def spots(self, asked: Spots) -> list[bytes]:
        tags = super().spots(asked)
        if asked.round_number < 2:
            time.sleep(_SHOWN_SECONDS)
        return tags

    def chain(self, asked: Chain) -> bytes:
        link = super().chain(asked)
        self._shown += 1
        if self._shown <= 2:
            time.sleep(_SHOWN_SECONDS)
        return link


THROTTLE = MemoryCheat(
    "throttle",
    "goes slow at first so that deadlines become long",
    lambda setting: agent_of(_Throttle(setting)),
    modes=ALL_MODES,
)
