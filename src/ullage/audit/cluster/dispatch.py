"""Which shard goes to which worker next, what is lost with a worker, and when to give up: no I/O here.

Workers die: machines are taken away, memory runs out. Their shard goes back and is done again, which changes
no bit of the result. But a shard that ends every worker it is given to would do so for ever, and so would
workers that never get anything done; both have a limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from ullage.audit.cluster.shards import Shard
from ullage.errors import FaultError

ATTEMPTS: Final = 3
"""Workers that one shard may cost before the audit ends."""
_SPARE: Final = 3


class Dispatch:
    """The shards of one audit: waiting, being worked on, done.

    `workers`: how many are wanted at a time.
    """

    def __init__(self, shards: Iterable[Shard], workers: int) -> None:
        # The dearest first, so that the last ones to finish are short.
        self._waiting = deque(sorted(shards, key=lambda shard: -shard.cost))
        self._working: dict[int, Shard] = {}
        self._costs: dict[int, int] = {}
        self._limit = workers + _SPARE
        self._in_a_row = 0
        self.lost = 0
        """Workers lost so far."""
        self.done_tokens = 0

    @property
    def unfinished(self) -> int:
        """Shards that are not done."""
        return len(self._waiting) + len(self._working)

    def next(self) -> Shard | None:
        """The next shard for a free worker; None: nothing waits."""
        if not self._waiting:
            return None
        shard = self._waiting.popleft()
        self._working[shard.number] = shard
        return shard

    def finished(self, shard: Shard) -> None:
        """A worker returned its scores."""
        del self._working[shard.number]
        self._in_a_row = 0
        self.done_tokens += shard.tokens

    def worker_lost(self, shard: Shard | None, reason: str) -> None:
        """A worker is gone, with the shard that it had (None: none yet). Raises FaultError: give up."""
        self.lost += 1
        self._in_a_row += 1
        if shard is not None:
            del self._working[shard.number]
            self._waiting.appendleft(shard)
            self._costs[shard.number] = self._costs.get(shard.number, 0) + 1
            if self._costs[shard.number] >= ATTEMPTS:
                raise FaultError(
                    f"{ATTEMPTS} workers were lost over the same {shard.tokens} output tokens, the last one "
                    f"because {reason}. Look at the memory of the workers' machines, or take fewer workers."
                )
        if self._in_a_row > self._limit:
            raise FaultError(
                f"{self._in_a_row} workers were lost in a row and none finished anything; the last one "
                f"because {reason}. Look at the cluster's own logs."
            )
