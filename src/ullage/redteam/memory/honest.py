"""No cheat: what an honest agent gets in the same runs, so that a table of zeros cannot pass for a catch."""

from __future__ import annotations

from ullage.memory.agent.keeper import Keeper
from ullage.redteam.memory.cheat import ALL_MODES, MemoryCheat, agent_of

HONEST = MemoryCheat(
    "honest",
    "does as it is told, for comparison",
    lambda setting: agent_of(Keeper((setting.size,), (), setting.threads)),
    allowed_by="it does not cheat",
    modes=ALL_MODES,
    withholds=lambda _: 0.0,
)
