"""Holds its weights packed without loss, and unpacks a block whenever a chain visits it.

Exponents of trained weights fit a fixed code, and vector units unpack one at the speed of memory. The decoder
here is played by one that costs no time: the plain weights. What it saves is what their own code saves.
"""

from __future__ import annotations

from functools import cache

from ullage.memory.agent.keeper import Keeper
from ullage.memory.residency.density import incompressible_bytes
from ullage.model.builtin import builtin_path
from ullage.redteam.memory.cheat import HOLD, MemoryCheat, Setting, agent_of
from ullage.redteam.memory.inflated import WeightsHost


@cache
def _saved() -> int:
    data = next(builtin_path().glob("*.safetensors")).read_bytes()
    return len(data) - incompressible_bytes(memoryview(data))


def _withholds(setting: Setting) -> float:
    return _saved() / setting.size


PACKED_WEIGHTS = MemoryCheat(
    "packed-weights",
    "holds weights packed without loss, with a decoder that costs no time",
    lambda setting: agent_of(Keeper((setting.size,), (), setting.threads), host=WeightsHost()),
    modes=(HOLD,),
    withholds=_withholds,
)
