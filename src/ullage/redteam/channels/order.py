"""Signals in the order of answers to requests that were sent together: as they come, or as the log has it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence

from ullage.redteam.channels.game import Ask, Exchange, Features

_TOGETHER = 4
_STEP = 0.03  # seconds between neighbours
_ORDERS = list(itertools.permutations(range(_TOGETHER)))


class Order:
    """log2(4!) bits for four messages: in which order they are answered."""

    name = "order"
    weights: Sequence[float] = (1,) * len(_ORDERS)
    messages = _TOGETHER
    stream = False
    counted_as = ""

    async def answer(self, exchange: Exchange, symbol: int) -> None:
        await exchange.respond(exchange.ids, [_STEP * (1 + _ORDERS[symbol][exchange.member])])

    async def listen(self, ask: Ask) -> Features:
        views = await asyncio.gather(*(ask(member) for member in range(_TOGETHER)))
        ranks = sorted(range(_TOGETHER), key=lambda member: views[member].at)
        return tuple(float(ranks.index(member)) for member in range(_TOGETHER))


class LogOrder(Order):
    """The same signal for somebody who was sent nothing: who reads in the log's public part which of the
    records was closed first. The clients only say which records are a unit's.
    """

    name = "order in the log"

    async def listen(self, ask: Ask) -> Features:
        views = await asyncio.gather(*(ask(member) for member in range(_TOGETHER)))
        return tuple(float(_counter(view.body)) for view in views)

    def read(self, counters: Features, closes: Mapping[int, int]) -> Features:
        """What the reader makes of a unit; `closes` are places of closes in the log, by counter."""
        ranks = sorted(counters, key=lambda counter: closes.get(int(counter), -1))
        return tuple(float(ranks.index(counter)) for counter in counters)


def _counter(body: bytes) -> int:
    """The record of an answer; -1 where there was none."""
    try:
        return int(json.loads(body)["ullage"]["records"][0]["counter"])
    except (ValueError, KeyError, IndexError, TypeError):
        return -1
