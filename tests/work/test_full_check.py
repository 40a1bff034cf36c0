"""Products that come in part: nobody waits for them, and they take no room."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tests.work.helpers import SMALL
from ullage.errors import MalformedError
from ullage.work.commitment import commit
from ullage.work.full_check import FullCheck
from ullage.work.kernels import Int32, int8
from ullage.work.operands import left_rows, right_columns
from ullage.work.protocol import Mode, Tile
from ullage.work.verifier import Session, Terms
from ullage.work.window import Unit

SEED = b"f" * 32
PRODUCT = int8(left_rows(SEED, SMALL, 0, SMALL.rows), right_columns(SEED, SMALL))


def unit(number: int, slot: int = 0) -> Unit:
    return Unit(number, slot, SEED, 5, answered=50, root=commit(PRODUCT).root)


def tile(number: int, first: int, rows: int) -> Tile:
    return Tile(number, first, np.ascontiguousarray(PRODUCT[first : first + rows], "<i4").tobytes())


def test_a_whole_product_is_checked_though_its_slot_is_lost_then() -> None:
    full, one = FullCheck(SMALL), unit(0)
    full.expect(one)
    full.take(one, tile(0, 0, 64))
    full.take(one, tile(0, 64, 64))
    full.drop(0, {0})
    full.settle({0}, 30)
    full.stop()
    assert one.checked is True


def test_half_a_product_goes_with_its_slot() -> None:
    full, one, other = FullCheck(SMALL), unit(0), unit(1, slot=1)
    for each in (one, other):
        full.expect(each)
        full.take(each, tile(each.number, 0, 64))
    full.drop(0, {0})
    assert (full.awaits(0), full.awaits(1)) == (False, True)
    assert list(full._tables) == list(full._filled) == [1]
    again = unit(2)
    full.expect(again)
    full.take(again, tile(2, 0, 64))  # the slot begins anew
    with pytest.raises(MalformedError, match="do not fit"):
        full.take(one, tile(0, 64, 64))
    full.stop()


def test_a_check_for_which_there_is_no_room_ends_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    full, one, other = FullCheck(SMALL), unit(0), unit(1, slot=1)
    honest = full.check

    def scarce(unit: Unit, product: Int32) -> bool:
        if unit.number == 0:
            raise MemoryError
        return honest(unit, product)

    monkeypatch.setattr(full, "check", scarce)
    for each in (one, other):
        full.expect(each)
        full.take(each, tile(each.number, 0, 128))
    full.settle({0, 1}, 30)
    full.stop()
    assert (one.checked, other.checked) == (None, True)


def test_time_that_slots_wait_for_the_checks_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    full = FullCheck(SMALL)
    monkeypatch.setattr(full, "check", lambda *_: time.sleep(0.1))
    for number in range(8):  # four have room, and one is looked at
        one = unit(number)
        full.expect(one)
        full.take(one, tile(number, 0, 128))
    assert 0.2 < full.take_held_up() < 3
    assert full.take_held_up() == 0
    full.settle(set(range(8)), 30)
    full.stop()


def test_a_slot_sends_one_product_after_the_other() -> None:
    """The first rows of thousands would fill the verifier's memory."""
    full, one, other = FullCheck(SMALL), unit(0), unit(1)
    full.expect(one)
    full.expect(other)
    full.take(one, tile(0, 0, 64))
    with pytest.raises(MalformedError, match="do not fit"):
        full.take(other, tile(1, 0, 64))
    full.take(one, tile(0, 64, 64))
    full.take(other, tile(1, 0, 64))
    full.stop()


def test_a_session_forgets_jobs_whose_product_went_with_its_slot() -> None:
    session = Session(Terms("127.0.0.1", 9, 1, SMALL, Mode.FULL))
    assert session._full is not None
    session.units = {0: unit(0), 1: unit(1)}
    session._full.expect(session.units[0])
    session.forget_settled(100)
    assert sorted(session.units) == [0, 1]
    session._full.drop(0, {0, 1})
    session.forget_settled(100)
    assert session.units == {}
    session.stop()
