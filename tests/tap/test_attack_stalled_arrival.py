"""Attack: a server gives the tap so much to read that another's request, which came before a slot's boundary,
is dealt with after it, and leaves a slot later."""

from __future__ import annotations

import asyncio
import time

import pytest

from ullage.tap.pacing.grid import SETTLING, Pace, ReleaseClock
from ullage.tap.pacing.ledger import Allowance, Ledger
from ullage.tap.pacing.schedule import Pacer

SLOT = 0.1


def pacer() -> Pacer:
    ledger = Ledger(Allowance(), time.monotonic, lambda: None)
    return Pacer(Pace(SLOT), ReleaseClock(SLOT), ledger)


async def until_boundary(ahead: float) -> float:
    """Sleep until so long before the next boundary but one; returns the boundary's time."""
    loop = asyncio.get_running_loop()
    boundary = (int(loop.time() / SLOT) + 2) * SLOT
    await asyncio.sleep(boundary - ahead - loop.time())
    return boundary


@pytest.mark.parametrize("boundaries", [1, 3])
def test_a_request_that_is_read_after_a_stall_counts_each_boundary(boundaries: int) -> None:
    async def play() -> int:
        paced, loop = pacer(), asyncio.get_running_loop()
        paced.schedule(8, 0)
        boundary = await until_boundary(0.03)
        before = paced.ledger.own
        # Another answer is parsed; ours has come meanwhile, and is read in the next turn.
        loop.call_soon(time.sleep, boundary + (boundaries - 0.8) * SLOT - loop.time())
        read = loop.create_future()
        loop.call_soon(lambda: loop.call_soon(read.set_result, None))
        await read
        paced.schedule(8, 1)
        return paced.ledger.own - before

    assert asyncio.run(play()) == boundaries


def test_a_request_after_the_tap_has_caught_up_costs_nothing() -> None:
    async def play() -> list[int]:
        paced = pacer()
        paced.schedule(8, 0)
        await until_boundary(0.03)
        time.sleep(0.08)
        counts = []
        for _ in range(5):
            await asyncio.sleep(0.013)
            before = paced.ledger.own
            paced.schedule(8, 1)
            counts.append(paced.ledger.own - before)
        return counts

    # A machine that does something else may stand still again.
    assert any(sum(asyncio.run(play())) == 0 for _ in range(5))


def test_an_idle_tap_is_settled() -> None:
    async def play() -> int:
        clock = ReleaseClock(SLOT)
        clock.unsettled()
        moments = 0
        for _ in range(40):
            await asyncio.sleep(0.017)
            moments += clock.unsettled()
        return moments

    assert any(asyncio.run(play()) == 0 for _ in range(5))
    assert SETTLING < SLOT / 10
