"""Keeps a share of the region for itself and rebuilds those blocks when they are asked for."""

from __future__ import annotations

from ullage.redteam.memory.cheat import ALL_MODES, MemoryCheat, MissingBlocksKeeper, agent_of

SPREAD = MemoryCheat(
    "drop",
    "keeps a share of the blocks, spread over the region, and rebuilds them when asked",
    lambda setting: agent_of(MissingBlocksKeeper(setting)),
    modes=ALL_MODES,
)
