"""The claims about an enforced log's times."""

from __future__ import annotations

import pytest

from ullage.audit.claims import Context
from ullage.audit.exact.lateness_claims import lateness_claims
from ullage.claims import Bound
from ullage.enforce.accounting import Tally, lateness_bits
from ullage.log.record import ClosePart

CONTEXT = Context("log", "sha256:" + "0" * 64, None, {})


def close(counter: int, detail: str) -> ClosePart:
    return ClosePart(
        bytes_from_upstream=1,
        bytes_to_client=1,
        bytes_to_upstream=1,
        counter=counter,
        detail=detail,
        finish_reason="stop",
        outcome="complete",
        output_ids=(1,),
        released_digest="sha256:" + "0" * 64,
        time_closed=1,
    )


def test_slots_are_added_up_over_the_log() -> None:
    tallies = [Tally(30, 1, 2, slots=5, late=1), Tally(10, 0, 0, slots=3)]
    lateness, replaced = lateness_claims(
        [close(n, tally.sentence()) for n, tally in enumerate(tallies)], CONTEXT
    )
    assert (lateness.name, lateness.bound) == ("channel.lateness_bits", Bound.UPPER)
    assert lateness.value == pytest.approx(lateness_bits(8, 1) + 10)
    assert "1 slots late in 8" in lateness.sample
    assert (replaced.name, replaced.value) == ("enforce.replaced_share", 1 / 40)


def test_one_answer_without_slots_leaves_time_without_bound() -> None:
    details = [Tally(30, 1, 2, slots=5).sentence(), Tally(10).sentence()]
    lateness, _ = lateness_claims([close(n, detail) for n, detail in enumerate(details)], CONTEXT)
    assert lateness.unbounded
    assert lateness.value is None


def test_a_log_that_was_not_enforced_has_none() -> None:
    assert lateness_claims([close(0, ""), close(1, "status 500")], CONTEXT) == ()
