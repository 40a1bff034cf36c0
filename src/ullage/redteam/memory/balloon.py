"""Says that the machine is smaller than it is, and keeps the difference."""

from __future__ import annotations

from ullage.memory.agent.keeper import Keeper
from ullage.redteam.memory.cheat import ALL_MODES, MemoryCheat, Setting, agent_of


class _Balloon(Keeper):
    def __init__(self, setting: Setting) -> None:
        super().__init__((setting.size,), (), setting.threads)
        self.payload = bytearray(b"\xa5") * round(setting.share * setting.size)


def _true_machine(setting: Setting) -> int:
    return setting.size + round(setting.share * setting.size)


def _kept(setting: Setting) -> float:
    return 1 - setting.size / _true_machine(setting)


BALLOON_BELIEVED = MemoryCheat(
    "balloon-believed",
    "reports less memory than there is; the verifier takes its word",
    lambda setting: agent_of(_Balloon(setting), setting.size),
    modes=ALL_MODES,
    allowed_by="the prover's kernel tells the machine's size (read as an inspector: not covered)",
    withholds=_kept,
)
BALLOON_INSPECTED = MemoryCheat(
    "balloon-inspected",
    "reports less memory than there is; the size was inspected",
    lambda setting: agent_of(_Balloon(setting), setting.size),
    modes=ALL_MODES,
    machine_bytes=_true_machine,
    withholds=_kept,
)
