"""The rule, as a table and as properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.audit.verdict import LIMITS, Divergence, Outcome, decide, limit_for
from ullage.errors import ExitCode, UsageError

F32, BF16 = LIMITS["float32"], LIMITS["bfloat16"]
ORDER = {Outcome.FAIL: 0, Outcome.CANNOT_TELL: 1, Outcome.PASS: 2}
counts = st.integers(0, 60_000).flatmap(lambda n: st.tuples(st.integers(0, min(n, 300)), st.just(n)))


@pytest.mark.parametrize(
    ("mismatches", "tokens", "limit", "expected"),
    [
        (0, 0, F32, Outcome.CANNOT_TELL),
        (0, 1000, F32, Outcome.CANNOT_TELL),
        (0, 23_023, F32, Outcome.CANNOT_TELL),
        (0, 23_024, F32, Outcome.PASS),
        (0, 100_000, F32, Outcome.PASS),
        (1, 1, F32, Outcome.FAIL),
        (1, 50, F32, Outcome.FAIL),
        (1, 60, F32, Outcome.CANNOT_TELL),
        (1, 100_000, F32, Outcome.PASS),
        (20, 100_000, F32, Outcome.CANNOT_TELL),
        (60, 100_000, F32, Outcome.FAIL),
        (0, 100, BF16, Outcome.CANNOT_TELL),
        (0, 300, BF16, Outcome.PASS),
        (10, 2000, BF16, Outcome.PASS),
        (40, 2000, BF16, Outcome.CANNOT_TELL),
        (80, 2000, BF16, Outcome.FAIL),
        (2000, 2000, BF16, Outcome.FAIL),
    ],
)
def test_table(mismatches: int, tokens: int, limit: float, expected: Outcome) -> None:
    verdict = decide(mismatches, tokens, limit)
    assert verdict.outcome is expected
    assert verdict.reasons
    assert all(reason.endswith(".") for reason in verdict.reasons)


@given(counts, st.sampled_from([F32, BF16]), st.integers(0, 50))
def test_more_mismatches_never_help(count: tuple[int, int], limit: float, more: int) -> None:
    k, n = count
    before, after = decide(k, n, limit), decide(min(k + more, n), n, limit)
    assert ORDER[after.outcome] <= ORDER[before.outcome]


@given(counts, st.sampled_from([F32, BF16]), st.integers(0, 50_000))
def test_clean_tokens_never_harm(count: tuple[int, int], limit: float, more: int) -> None:
    k, n = count
    assert ORDER[decide(k, n + more, limit).outcome] >= ORDER[decide(k, n, limit).outcome]


@given(counts)
def test_a_larger_limit_never_harms(count: tuple[int, int]) -> None:
    assert ORDER[decide(*count, BF16).outcome] >= ORDER[decide(*count, F32).outcome]


@given(counts, st.sampled_from([F32, BF16]))
def test_any_finding_fails_and_is_among_the_reasons(count: tuple[int, int], limit: float) -> None:
    verdict = decide(*count, limit, ["The root does not match.", "A counter is missing."])
    assert verdict.outcome is Outcome.FAIL
    assert {"The root does not match.", "A counter is missing."} <= set(verdict.reasons)


@given(counts, st.sampled_from([F32, BF16]))
def test_doubts_keep_from_passing_and_change_nothing_else(count: tuple[int, int], limit: float) -> None:
    plain, doubted = decide(*count, limit), decide(*count, limit, doubts=["The end is missing."])
    assert doubted.outcome is (Outcome.CANNOT_TELL if plain.outcome is Outcome.PASS else plain.outcome)
    assert "The end is missing." in doubted.reasons


def test_no_tokens_never_pass_whatever_the_limit() -> None:
    assert decide(0, 0, 1.0).outcome is Outcome.CANNOT_TELL


def test_cannot_tell_says_how_much_is_missing() -> None:
    assert "about 22024 more tokens" in " ".join(decide(0, 1000, F32).reasons)
    assert "no number of further tokens" in " ".join(decide(40, 2000, BF16).reasons)


def test_first_divergence_is_a_reason() -> None:
    first = Divergence(record=4, position=17, delivered=9, reference=3, margin=0.5)
    assert "record 4, output token 17: 9 was delivered where the reference has 3" in " ".join(
        decide(50, 100, F32, first=first).reasons
    )
    outside = Divergence(record=0, position=0, delivered=9, reference=3, margin=float("inf"))
    assert "outside the set" in outside.sentence()


def test_exit_codes() -> None:
    codes = [outcome.exit_code for outcome in (Outcome.PASS, Outcome.FAIL, Outcome.CANNOT_TELL)]
    assert codes == [ExitCode.PASS, ExitCode.FAIL, ExitCode.CANNOT_TELL]


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="int4"):
        limit_for("int4")
