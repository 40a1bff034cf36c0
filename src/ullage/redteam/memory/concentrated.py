"""The same with all gaps in one place: what samples of long runs would miss."""

from __future__ import annotations

from ullage.redteam.memory.cheat import ALL_MODES, MemoryCheat, MissingBlocksKeeper, agent_of


class _Concentrated(MissingBlocksKeeper):
    concentrated = True


CONCENTRATED = MemoryCheat(
    "concentrated-gap",
    "keeps one contiguous share and rebuilds it when asked",
    lambda setting: agent_of(_Concentrated(setting)),
    modes=ALL_MODES,
)
