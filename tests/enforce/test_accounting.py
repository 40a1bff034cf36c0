"""What a record says of drafts and slots, and what lateness can carry."""

from __future__ import annotations

import math
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.enforce.accounting import Ledger, Tally, lateness_bits
from ullage.log.record import ClosePart
from ullage.tap.reply import Reply

COUNT = st.integers(0, 10**9 - 1)


@given(st.integers(0, 60), st.integers(0, 20))
def test_lateness_is_the_length_of_a_code(slots: int, late: int) -> None:
    ways = math.comb(slots + late, late) * (slots + late + 1)
    assert lateness_bits(slots, late) == pytest.approx(math.log2(ways), abs=1e-9)


def test_the_code_leaves_no_room() -> None:
    """Its weights over all ways to be late add up to one: enumerated, not only counted."""
    total = sum(2 ** -lateness_bits(2, sum(late)) for late in product(range(400), repeat=2))
    assert 0.98 < total <= 1
    assert sum(math.comb(late + 2, 2) * 2 ** -lateness_bits(3, late) for late in range(10**5)) < 1


@given(st.integers(0, 300), st.integers(1, 40))
def test_lateness_bits_grow(slots: int, late: int) -> None:
    assert 0 <= lateness_bits(slots, late - 1) < lateness_bits(slots, late) < lateness_bits(slots + 1, late)


@given(COUNT, COUNT, COUNT, COUNT, COUNT, st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])))
def test_a_sentence_is_read_again(  # noqa: PLR0917
    drafted: int, replaced: int, alone: int, slots: int, late: int, failure: str
) -> None:
    tally = Tally(drafted, replaced, alone, failure[:200], slots, late if slots else 0)
    assert Tally.parse(tally.sentence()) == tally


@pytest.mark.parametrize(
    "detail", ["", "status 500", "enforced: 1 drafted", "enforced: -1 drafted, 0 replaced"]
)
def test_other_details_are_no_tally(detail: str) -> None:
    assert Tally.parse(detail) is None


def test_a_ledger_adds_up_a_log() -> None:
    details = [
        Tally(slots=5, late=1).sentence(),
        "the tap was stopped",
        "",
        Tally(9, 1, 2, "x", 7, 2).sentence(),
    ]
    assert Ledger.of(details) == Ledger(12, 3)
    assert Ledger.of(details).bits == lateness_bits(12, 3)


def test_an_answer_that_the_tap_ended_keeps_its_late_slots() -> None:
    """They were seen, whatever came after."""
    choice: Any = SimpleNamespace(
        record=SimpleNamespace(closed=False, counter=3, output_ids=[4, 5]),
        detail=Tally(9, 1, 2, "", slots=7, late=2).sentence(),
    )
    nothing: Any = None
    [close] = Reply(nothing, [choice], nothing).closes_of_abort("the tap was stopped")
    assert isinstance(close, ClosePart)
    assert Tally.parse(close.detail) == Tally(9, 1, 2, "the tap was stopped", 7, 2)


@given(st.booleans(), st.booleans())
def test_what_the_tap_notes_of_the_text_is_no_failure(slotted: bool, failed: bool) -> None:
    tally = Tally(30, 1, 2, "status 500" if failed else "", 5 if slotted else 0, 1 if slotted else 0)
    assert Tally.parse(f"{tally.sentence()}; token ids not canonical from position 12") == tally
