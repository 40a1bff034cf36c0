"""What two parties' bundles say of each other, record by record."""

from __future__ import annotations

from ullage.sealed.cross import Agreement, compare_records

HONEST = {3: (b"tokens of 3", False), 5: (b"tokens of 5", True)}


def test_the_same_readings_agree() -> None:
    found = compare_records(HONEST, dict(HONEST))
    assert (found.agreement, found.disagreeing, found.one_sided) == (Agreement.AGREE, (), ())


def test_other_tokens_or_another_side_of_the_bound_disagree() -> None:
    for place, reading in ((3, (b"others", False)), (5, (b"tokens of 5", False))):
        found = compare_records(HONEST, {**HONEST, place: reading})
        assert (found.agreement, found.disagreeing) == (Agreement.DISAGREE, (place,))


def test_records_of_one_party_alone_are_named_and_prove_nothing() -> None:
    found = compare_records({3: HONEST[3]}, {5: HONEST[5]})
    assert (found.agreement, found.one_sided) == (Agreement.CANNOT_TELL, (3, 5))
