"""Hides its payload in memory that the agent does not reach: its own process."""

from __future__ import annotations

from ullage.memory.agent.keeper import Keeper
from ullage.redteam.memory.cheat import ALL_MODES, MemoryCheat, Setting, agent_of


class _Unreached(Keeper):
    def __init__(self, setting: Setting) -> None:
        super().__init__((setting.size,), (), setting.threads)
        self.payload = bytearray(b"\xa5") * round(setting.share * setting.size)


def _machine(setting: Setting) -> int:
    return setting.size + round(setting.share * setting.size)


UNREACHED = MemoryCheat(
    "unreached",
    "hides a payload in memory beside the region",
    lambda setting: agent_of(_Unreached(setting), _machine(setting)),
    modes=ALL_MODES,
    machine_bytes=_machine,
    withholds=lambda setting: 1 - setting.size / _machine(setting),
)
