"""When the writer of a log acts of its own accord, and what it takes for slow or for much."""

from __future__ import annotations

from dataclasses import dataclass

SLOW_SYNC_S = 0.005  # the interpreter's switch interval: so long may a thread wait for a busy event loop
LONG_BACKLOG = 20_000  # so many entries take a quarter of a second to publish


@dataclass(frozen=True)
class CheckpointPolicy:
    """When the writer signs and when it tries again.

    It signs so many seconds or entries after the last checkpoint, and opens the log anew `reopen_seconds`
    after an error of the disk, then ever more rarely.
    """

    seconds: float = 2.0
    entries: int = 10_000
    reopen_seconds: float = 1.0
