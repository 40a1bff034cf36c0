"""Every cheat against memory proofs, by name."""

from __future__ import annotations

from ullage.errors import UsageError
from ullage.redteam.memory.balloon import BALLOON_BELIEVED, BALLOON_INSPECTED
from ullage.redteam.memory.cheat import MemoryCheat
from ullage.redteam.memory.compress import COMPRESS
from ullage.redteam.memory.concentrated import CONCENTRATED
from ullage.redteam.memory.disk import DISK
from ullage.redteam.memory.drop import SPREAD
from ullage.redteam.memory.helper import CAPPED_HELPER, HELPER, PARTIAL_TAGS, SECOND_MACHINE
from ullage.redteam.memory.honest import HONEST
from ullage.redteam.memory.inflated import INFLATED_WEIGHTS, TWICE_DECLARED
from ullage.redteam.memory.packed import PACKED_WEIGHTS
from ullage.redteam.memory.parked import PARKED
from ullage.redteam.memory.precomputed import PRECOMPUTED
from ullage.redteam.memory.regenerate import REGENERATE
from ullage.redteam.memory.shared_seed import SHARED_SEED
from ullage.redteam.memory.swap import SWAP
from ullage.redteam.memory.throttle import THROTTLE
from ullage.redteam.memory.unreached import UNREACHED
from ullage.redteam.memory.unread_tail import UNREAD_TAIL

CHEATS: dict[str, MemoryCheat] = {
    cheat.name: cheat
    for cheat in (
        SPREAD, CONCENTRATED, REGENERATE, COMPRESS, DISK, SWAP, CAPPED_HELPER, HELPER, PARTIAL_TAGS,
        SECOND_MACHINE, PRECOMPUTED, SHARED_SEED, UNREACHED, BALLOON_BELIEVED, BALLOON_INSPECTED, THROTTLE,
        UNREAD_TAIL, PARKED, INFLATED_WEIGHTS, TWICE_DECLARED, PACKED_WEIGHTS, HONEST,
    )
}  # fmt: skip


def get_cheat(name: str) -> MemoryCheat:
    """Raises UsageError, which lists the names."""
    if name not in CHEATS:
        raise UsageError(f"There is no memory cheat '{name}'; there are {', '.join(CHEATS)}.")
    return CHEATS[name]
