"""When tokens leave depends on the clock and on how many there are."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.tap.slots import Piece, Slots, lateness_bits, slotted


@given(st.integers(0, 60), st.integers(0, 20))
def test_lateness_counts_the_ways_to_be_late(slots: int, late: int) -> None:
    assert lateness_bits(slots, late) == pytest.approx(math.log2(math.comb(slots + late, late)), abs=1e-9)


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
        slots = Slots(0.05, tokens, clock())
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
    assert slots.bits == lateness_bits(3, slots.late)
    assert times[1] >= 5
    assert times[2] - times[1] >= 0.9
