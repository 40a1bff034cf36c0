"""Parks its state on disk before the wipe, erases honestly, and takes it back afterwards."""

from __future__ import annotations

from ullage.memory.agent.keeper import Keeper
from ullage.memory.machine.region import Region
from ullage.redteam.memory.cheat import MemoryCheat, Setting, agent_of


class _Parked(Keeper):
    def __init__(self, setting: Setting) -> None:
        super().__init__((setting.size,), (), setting.threads)
        self._path = setting.folder / "parked"
        self._payload: bytes | None = b"\xa5" * round(setting.share * setting.size)

    def map(self, space: int, size: int) -> Region:
        """A verifier has come. When the last one had gone, the state was taken back: here, only now."""
        payload = self._payload if self._payload is not None else self._path.read_bytes()
        self._path.write_bytes(payload)
        self._payload = None
        return super().map(space, size)


PARKED = MemoryCheat(
    "parked",
    "writes its state to a disk before the wipe and reads it back after it",
    lambda setting: agent_of(_Parked(setting)),
    allowed_by="no store outside the machine's total carries state through the wipe",
)
