"""Those who wait until their entries are durable, in threads and in event loops."""

from __future__ import annotations

import asyncio

from ullage.errors import FaultError
from ullage.log.journal.segments import Prepared


class Waiter:
    """Entries on their way to the disk, and who waits for them."""

    __slots__ = ("done", "failure", "first_index", "future", "loop", "prepared")

    def __init__(
        self,
        first_index: int,
        prepared: list[Prepared],
        loop: asyncio.AbstractEventLoop | None,
        future: asyncio.Future[int] | None,
    ) -> None:
        self.first_index = first_index
        self.prepared = prepared
        self.loop = loop
        self.future = future
        self.done = False
        self.failure: FaultError | None = None


def resolve(batch: list[Waiter], failure: FaultError | None) -> None:
    """Tell everyone of a batch, with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Waiter]] = {}
    for waiter in batch:
        waiter.done, waiter.failure = True, failure
        if waiter.loop is not None:
            by_loop.setdefault(waiter.loop, []).append(waiter)
    for loop, waiters in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle_all, waiters)
        except RuntimeError:
            continue  # the loop has been closed, so nobody waits there any more


def _settle_all(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        if waiter.future is None or waiter.future.done():
            continue  # cancelled: the entries are durable all the same
        if waiter.failure is not None:
            waiter.future.set_exception(FaultError(*waiter.failure.args))
        else:
            waiter.future.set_result(waiter.first_index)
