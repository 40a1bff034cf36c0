"""Keeps 32 bytes: the seed. A fill that is a cheap function of the challenge is passed by this."""

from __future__ import annotations

from ullage.redteam.memory.cheat import MemoryCheat, MissingBlocksKeeper, Setting, agent_of


class _Regenerate(MissingBlocksKeeper):
    def __init__(self, setting: Setting) -> None:
        super().__init__(Setting(setting.size, 1.0, setting.folder, setting.helper, setting.threads))

    def fill(self, space: int, size: int, seed: bytes, layers: int) -> None:
        from ullage.memory.noise.butterfly import ButterflyNoise

        self.region(space, size)
        self.noise = lambda: ButterflyNoise(seed, layers)  # and writes nothing at all


REGENERATE = MemoryCheat(
    "regenerate",
    "keeps the seed alone, rebuilds everything when asked",
    lambda setting: agent_of(_Regenerate(setting)),
    withholds=lambda _: 1.0,
)
