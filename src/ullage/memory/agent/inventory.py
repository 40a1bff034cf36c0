"""How much memory the machine has, how much of it an agent reaches, and what it does not reach.

All of it is the prover's kernel speaking (`/proc`, control groups): claims that use it say so.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from ullage.errors import UsageError
from ullage.memory.agent.makers import MAKER_BYTES, makers_for
from ullage.memory.noise.noise import BLOCK_BYTES

# v1 says "no limit" with the largest multiple of a page below 2^63.
_NO_LIMIT = 1 << 62
_HOST_RESERVE_BYTES = 1 << 30
_GROUP_RESERVE_BYTES = 24 << 20
# Entries of 8 bytes for pages of 4 KiB, which the kernel charges to who maps them: 32 MiB for 16 GiB.
_MAPPED_A_TABLE_BYTE = 512


@dataclass(frozen=True)
class Group:
    """The memory control group that stands for the machine."""

    path: Path
    limit: int
    used: int
    reclaimable: int
    version: int


@dataclass(frozen=True)
class Inventory:
    """Sizes in bytes. `source` says whose word `machine` is."""

    machine: int
    source: str
    reachable: int
    unreached: tuple[tuple[str, int], ...]
    devices: tuple[tuple[str, int], ...] = ()


def _fields(text: str) -> dict[str, int]:
    """Lines `name[:] number [kB]`, in bytes."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        parts = line.replace(":", " ").split()
        if len(parts) >= 2 and parts[1].isdigit():
            found[parts[0]] = int(parts[1]) * (1024 if parts[-1] == "kB" else 1)
    return found


def find_group(
    process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Group | None:
    """The nearest group above this process that limits memory, version 1 or 2; None without a limit."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return None
    places: list[tuple[Path, int]] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            places.append((root / "memory" / path.lstrip("/"), 1))
        elif not controllers:
            places += [(root / path.lstrip("/"), 2), (root / "unified" / path.lstrip("/"), 2)]
    best: Group | None = None
    for place, version in places:
        for folder in (place, *place.parents):
            if root not in (folder, *folder.parents):
                break
            found = _read_group(folder, version)
            if found and (best is None or found.limit < best.limit):
                best = found
    return best


def _read_group(folder: Path, version: int) -> Group | None:
    limit_name, used_name, cache_name = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    try:
        text = (folder / limit_name).read_text().strip()
        if not text.isdigit() or int(text) >= _NO_LIMIT:
            return None
        used = int((folder / used_name).read_text())
        cache = _fields((folder / "memory.stat").read_text()).get(cache_name, 0)
    except (OSError, ValueError):
        return None
    return Group(folder, int(text), used, cache, version)


def take(machine: str, limit: int | None = None, reserve: int | None = None, mapped: int = 0) -> Inventory:
    """Look at the machine: `group` (the control group that limits this process) or `host`.

    `limit` caps what is mapped; `mapped` is what this process has mapped for it already.
    Raises UsageError for a group without a limit or another word.
    """
    host = _fields(Path("/proc/meminfo").read_text())
    if machine == "group":
        group = find_group()
        if group is None:
            raise UsageError(
                "No control group limits this process's memory; put it in one, or use --machine host."
            )
        total, source = min(group.limit, host["MemTotal"]), f"limit of the control group (v{group.version})"
        kept = _GROUP_RESERVE_BYTES + makers_for(total) * MAKER_BYTES if reserve is None else reserve
        free = min(group.limit - group.used + group.reclaimable, host["MemAvailable"])
    elif machine == "host":
        total, source = host["MemTotal"], "MemTotal of the kernel"
        kept = max(_HOST_RESERVE_BYTES, total // 20) if reserve is None else reserve
        free = host["MemAvailable"]
    else:
        raise UsageError(f"A machine is 'host' or 'group', not '{machine}'.")
    room = max(0, free - kept)
    reachable = max(0, free + mapped - kept - room // (_MAPPED_A_TABLE_BYTE + 1))
    if limit is not None:
        reachable = min(reachable, limit)
    reachable -= reachable % BLOCK_BYTES
    tables = max(0, reachable - mapped) // _MAPPED_A_TABLE_BYTE
    own = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    own = max(0, own - mapped)
    rest = max(0, total - reachable - own - kept - tables)
    unreached = (
        ("the agent's own process", own),
        ("reserve that keeps the machine alive", kept),
        ("page tables of what is mapped", tables),
        ("kernel, other processes, above the limit", rest),
        ("disk, network card, firmware: not in the total", 0),
    )
    return Inventory(total, source, reachable, unreached, _devices())


def _devices() -> tuple[tuple[str, int], ...]:
    """Memory of the GPUs that torch sees, 2 % left for its own allocations."""
    if importlib.util.find_spec("torch") is None or not any(Path("/dev").glob("nvidia[0-9]*")):
        return ()
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        usable = max(0, free - total // 50)
        found.append((f"cuda:{index}", usable - usable % BLOCK_BYTES))
    return tuple(found)
