"""The workers of one audit on a Ray cluster: started, given shards, replaced when they are lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ullage.audit.bundle.evidence import TokenScores
from ullage.audit.cluster.dispatch import Dispatch
from ullage.audit.cluster.ray_cluster import Cluster
from ullage.audit.cluster.ray_worker import Introduction, Refusal, Task, Worker
from ullage.audit.cluster.shards import Shard
from ullage.errors import FaultError, UsageError
from ullage.log.record import Record

START_SECONDS: Final = 1200.0
"""For a worker to be placed, started, and to hash and load its weights."""
SHARD_SECONDS: Final = 1800.0
"""For one shard; a worker that takes longer hangs, or its machine is out of reach."""
_POLL_SECONDS: Final = 1.0


@dataclass
class _Busy:
    """A worker and what it was asked: a shard, or (None) who it is."""

    actor: Any
    shard: Shard | None
    since: float


class RayPool:
    """Scores of shards by workers that all equal `expected`.

    `scored` is called with each shard that is done and its records' scores, in the order of its batches.
    """

    def __init__(
        self,
        cluster: Cluster,
        task: Task,
        expected: Introduction,
        records: Sequence[Record],
        scored: Callable[[Shard, list[TokenScores]], None],
    ) -> None:
        self._cluster = cluster
        self._ray = cluster.ray
        self._task = task
        self._expected = expected
        self._records = records
        self._scored = scored
        # Tries are ours, because Ray's would neither know our limits nor replace a worker that hangs.
        remote = self._ray.remote(
            num_cpus=cluster.threads, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._actor_class = remote(Worker)
        self._busy: dict[Any, _Busy] = {}
        self._idle: list[Any] = []

    def run(self, shards: Sequence[Shard]) -> Dispatch:
        """Score all shards. Raises UsageError for unequal workers, FaultError when too many are lost."""
        workers = min(self._cluster.workers, len(shards))
        dispatch = Dispatch(shards, workers)
        try:
            for _ in range(workers):
                self._start_worker()
            while dispatch.unfinished:
                ready, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=_POLL_SECONDS)
                for reference in ready:
                    self._receive(reference, dispatch)
                self._end_stuck(dispatch)
        finally:
            for actor in [*self._idle, *(busy.actor for busy in self._busy.values())]:
                self._ray.kill(actor)
        return dispatch

    def _start_worker(self) -> None:
        actor = self._actor_class.remote(self._task)
        self._busy[actor.introduce.remote()] = _Busy(actor, None, time.monotonic())

    def _receive(self, reference: Any, dispatch: Dispatch) -> None:
        busy = self._busy.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._replace(busy, dispatch, _why(error))
            return
        if busy.shard is None:
            self._check(answer)
        else:
            self._scored(busy.shard, answer)
            dispatch.finished(busy.shard)
        self._give(busy.actor, dispatch)

    def _give(self, actor: Any, dispatch: Dispatch) -> None:
        shard = dispatch.next()
        if shard is None:
            self._idle.append(actor)  # until another worker is lost
            return
        batches = [[self._records[place] for place in batch] for batch in shard.batches]
        self._busy[actor.score.remote(batches)] = _Busy(actor, shard, time.monotonic())

    def _replace(self, busy: _Busy, dispatch: Dispatch, reason: str) -> None:
        self._ray.kill(busy.actor)
        dispatch.worker_lost(busy.shard, reason)
        if self._idle:
            self._give(self._idle.pop(), dispatch)
        elif len(self._busy) < dispatch.unfinished:
            self._start_worker()

    def _end_stuck(self, dispatch: Dispatch) -> None:
        now = time.monotonic()
        for reference, busy in list(self._busy.items()):
            limit = START_SECONDS if busy.shard is None else SHARD_SECONDS
            if now - busy.since > limit:
                del self._busy[reference]
                what = "did not start" if busy.shard is None else "gave no answer"
                self._replace(busy, dispatch, f"it {what} within {limit:.0f} seconds")

    def _check(self, answer: object) -> None:
        """Hold what a worker says of itself against this machine."""
        if isinstance(answer, Refusal):
            raise UsageError(f"A worker of {self._cluster.name} cannot take part: {answer.sentence}")
        if not isinstance(answer, Introduction):
            raise FaultError(f"A worker of {self._cluster.name} answered with something else than its name.")
        if answer == self._expected:
            return
        names = ("version", "model", "stack", "dtype")
        name = next(one for one in names if getattr(answer, one) != getattr(self._expected, one))
        what = {
            "version": "runs another version of Ullage",
            "model": "holds other weights under this path",
            "stack": "has another numerical stack (torch build, instruction set or library settings)",
            "dtype": "computes in another precision",
        }[name]
        raise UsageError(
            f"A worker of {self._cluster.name} {what}: {getattr(answer, name)} where this machine has "
            f"{getattr(self._expected, name)}. Its scores would not be the same bits: make them equal."
        )


def _why(error: BaseException) -> str:
    """Ray's reason in one line."""
    cause = getattr(error, "cause", None) or error
    line = next(iter(str(cause).strip().splitlines()), "") or type(cause).__name__
    return line[:300].rstrip(". ")
