"""When tokens leave depends on the clock and on how many there are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

import pytest

from ullage.enforce.accounting import Ledger, lateness_bits
from ullage.tap.pacing.enforced import SLACK, Piece, Slots, Watch, slotted

INTERVAL = 0.05


async def pieces(sizes: Sequence[int], delays: Sequence[float]) -> AsyncGenerator[Piece]:
    token = 0
    for number, (size, delay) in enumerate(zip(sizes, delays, strict=True)):
        await asyncio.sleep(delay)
        yield tuple(range(token, token + size)), "stop" if number == len(sizes) - 1 else None
        token += size


Released = tuple[list[Piece], list[float], Slots]


def release(sizes: Sequence[int], delays: Sequence[float], tokens: int) -> Released:
    async def use() -> Released:
        clock = asyncio.get_running_loop().time
        slots = Slots(INTERVAL, tokens, clock(), Watch(lambda _: None))
        found, times = [], []
        async for piece in slotted(pieces(sizes, delays), slots):
            found.append(piece)
            times.append((clock() - slots.start) / slots.interval)
        return found, times, slots

    return asyncio.run(use())


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 5, 2], [4, 4, 4], [11, 1]])
def test_pieces_are_cut_by_the_slots_alone(sizes: list[int]) -> None:
    found, times, slots = release(sizes, [0.0] * len(sizes), 4)
    assert found == [((0, 1, 2, 3), None), ((4, 5, 6, 7), None), ((8, 9, 10, 11), "stop")]
    if slots.late == 0:  # on a busy machine a slot may be missed
        assert [int(time) for time in times] == [1, 2, 3]


def test_a_late_piece_moves_all_that_follow_and_is_counted() -> None:
    found, times, slots = release([4, 4, 4], [0.0, 0.22, 0.0], 4)
    assert len(found) == 3
    assert slots.late >= 3
    assert (slots.watch.ledger.slots, slots.watch.ledger.late) == (3, slots.late)
    assert times[1] >= 5
    assert int(times[2] + 0.01) > int(
        times[1] + 0.01
    )  # a slot of its own; when we see it is up to the machine


def test_what_comes_is_made_ready_while_what_is_there_waits() -> None:
    """Three pieces of 0.8 slots each: one after the other they would miss the third slot."""
    # A busy machine may miss a slot now and then; one after the other would miss one always.
    assert any(release([4, 4, 4], [0.04, 0.04, 0.04], 4)[2].late == 0 for _ in range(8))


def test_a_failure_ends_the_wait() -> None:
    async def broken() -> AsyncGenerator[Piece]:
        yield (1,), None
        raise RuntimeError("lost")

    async def use() -> None:
        slots = Slots(10.0, 4, asyncio.get_running_loop().time(), Watch(lambda _: None))
        async for _ in slotted(broken(), slots):
            raise AssertionError("nothing was whole")

    with pytest.raises(RuntimeError, match="lost"):
        asyncio.run(asyncio.wait_for(use(), 5))


def test_who_stands_still_over_a_slot_is_late_as_well() -> None:
    """What a server gives the tap to read moves a release as much as what it keeps back."""

    async def use() -> Slots:
        loop = asyncio.get_running_loop()
        slots = Slots(INTERVAL, 4, loop.time(), Watch(lambda _: None))
        loop.call_later(INTERVAL * 0.6, time.sleep, INTERVAL * 6)
        await slots.next()
        passed = (loop.time() - slots.start) / INTERVAL
        assert slots.late >= 5
        assert slots.watch.ledger == Ledger(slots=1, late=slots.late)
        assert 1 + slots.late <= passed < 2 + slots.late + SLACK  # it left at one of its slots
        return slots

    asyncio.run(use())


def test_who_leaves_at_a_missed_slot_has_seen_that_it_was_late() -> None:
    async def use(wait: float) -> Ledger:
        slots = Slots(INTERVAL, 4, asyncio.get_running_loop().time(), Watch(lambda _: None))
        await asyncio.sleep(wait * INTERVAL)
        slots.left()
        assert (slots.released, slots.late) == (slots.watch.ledger.slots, slots.watch.ledger.late)
        return slots.watch.ledger

    assert asyncio.run(use(0.2)) == Ledger()
    late = asyncio.run(use(3.5))
    assert late.slots == 1
    assert late.late >= 3


def test_drafts_count_until_half_a_slot_before_theirs() -> None:
    """Whatever happened before: an error does not buy the server more time."""
    slots = Slots(2.0, 4, 100.0, Watch(lambda _: None))
    assert [slots.deadline(known) for known in (0, 3, 4, 7, 8)] == [101.0, 101.0, 103.0, 103.0, 105.0]
    slots.late = 2
    assert slots.deadline(0) == 105.0


def test_alarms_at_the_first_late_slot_and_at_every_doubling() -> None:
    said: list[str] = []
    watch = Watch(said.append)
    for late in [0] * 50 + [1] * 9:
        watch.count(late)
    assert len(said) == 4  # 1, 2, 4, 8
    assert "1 slots late in 51" in said[0]
    assert not watch.spent


def test_a_spent_budget_ends_all_waiting_for_drafts() -> None:
    said: list[str] = []
    watch = Watch(said.append, budget=20.0, ledger=Ledger(slots=200))
    slots = Slots(2.0, 4, 100.0, watch)
    watch.count(1)
    assert lateness_bits(201, 1) < 20.0
    assert slots.deadline(0) > slots.start
    watch.count(1)
    assert watch.spent
    assert "the lateness budget is spent" in said[-1]
    assert slots.deadline(0) == slots.start
    assert not Watch(said.append, budget=1.0, ledger=Ledger(slots=10**6)).spent  # never late, never spent
