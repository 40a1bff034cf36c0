"""Inference credit: prefixes once, duplicates nothing, batches as large as the log allows."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import MalformedError
from ullage.work.calibration import read_inference
from ullage.work.inference import (
    Costs,
    Served,
    credit,
    is_the_references,
    outside,
    served_records,
    within,
)
from ullage.work.window import Inference

COSTS = Costs(1.0, ((1, 8.0), (4, 4.0), (16, 2.0)), 100.0)


def served(
    counter: int,
    prompt: tuple[int, ...],
    output: tuple[int, ...],
    times: tuple[int, int] | None = None,
    *,
    verified: bool = True,
) -> Served:
    start, end = times or (counter * 100, counter * 100 + 50)
    return Served(counter, start, end, prompt, output, verified)


def test_a_first_request_earns_its_prompt_and_all_but_the_last_output_token() -> None:
    (earned,) = credit([served(0, (1, 2, 3), (4, 5, 6))], COSTS, 1)
    assert (earned.new_prompt, earned.new_output) == (3, 2)
    assert math.isclose(earned.seconds, 3 * 1.0 + 2 * 8.0)
    assert earned.operations == 500.0


def test_a_shared_prefix_counts_once() -> None:
    first, second = credit([served(0, (1, 2, 3), (4, 5)), served(1, (1, 2, 9), (7, 8))], COSTS, 1)
    assert (first.new_prompt, second.new_prompt) == (3, 1)
    assert second.new_output == 1


def test_a_repeated_request_with_the_same_answer_earns_nothing() -> None:
    records = [served(n, (1, 2, 3), (4, 5, 6)) for n in range(3)]
    assert [earned.seconds for earned in credit(records, COSTS, 1)][1:] == [0.0, 0.0]


def test_a_conversation_pays_only_for_what_is_new() -> None:
    first, second = credit([served(0, (1, 2), (3, 4)), served(1, (1, 2, 3, 4, 5), (6, 7))], COSTS, 1)
    assert first.new_prompt + first.new_output == 3  # 1 2 3
    assert second.new_prompt == 2  # 4 was drawn, never fed; and 5


def test_what_the_audit_did_not_verify_earns_nothing_and_hides_nothing() -> None:
    bad, good = credit([served(0, (1, 2), (3, 4), verified=False), served(1, (1, 2), (3, 4))], COSTS, 1)
    assert bad.seconds == 0.0
    assert good.new_prompt == 2


def test_concurrent_records_are_charged_as_one_batch() -> None:
    records = [served(n, (n,), (1, 2), times=(0, 100)) for n in range(4)]
    assert all(math.isclose(earned.seconds, 1.0 + 4.0) for earned in credit(records, COSTS, 1))
    assert COSTS.decode_seconds(5) == 2.0  # not measured: the next larger batch, which is cheaper
    assert COSTS.decode_seconds(16) == 2.0


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_a_batch_beyond_the_largest_measured_is_not_charged_as_the_largest(size: int, other: int) -> None:
    assert COSTS.decode_seconds(32) == 1.0  # a step of 32 takes no less than one of 16: 32 s
    few, many = sorted((size, other))
    assert COSTS.decode_seconds(many) <= COSTS.decode_seconds(few)
    # What is known of the twin: a step of 16 rows takes 32 s, so one of more takes no less.
    assert COSTS.decode_seconds(many) * many <= max(32.0, 8.0 * 16)


def test_a_prompt_without_an_answer_earns_nothing() -> None:
    # A server that fails every request would otherwise be paid for prompts that it never read.
    failed, answered = credit([served(0, tuple(range(1000)), ()), served(1, (0, 1), (7, 8))], COSTS, 1)
    assert (failed.seconds, failed.operations, failed.new_prompt) == (0.0, 0.0, 0)
    assert answered.new_prompt == 2  # and it takes nothing from who did


def test_credit_is_spread_over_the_time_the_record_was_open() -> None:
    earned = credit([served(0, (1,), (2, 3), times=(0, 100))], COSTS, 1)
    assert within(earned, 0, 100) == Inference(9.0, 9.0, 9.0, 200.0)
    half = within(earned, 50, 100)
    assert half.smallest == half.shown == pytest.approx(4.5)
    assert half.operations == 100.0
    assert half.inside == 0.0  # all of it may have been spent before
    assert within(earned, 100, 200) == Inference()


def test_credit_outside_the_windows_is_told() -> None:
    earned = credit([served(0, (1,), (2, 3), times=(0, 100))], COSTS, 1)
    assert outside(earned, [(0, 50), (50, 100)]) == 0.0
    assert outside(earned, [(0, 25)]) == pytest.approx(9.0 * 0.75)
    assert outside(earned, []) == 9.0


def test_a_log_that_stays_sealed_in_part_is_charged_as_the_largest_batch() -> None:
    assert COSTS.of_the_largest_batch().decode_seconds(1) == 2.0
    assert COSTS.of_the_largest_batch(5).decode_seconds(1) == 2.0
    assert COSTS.of_the_largest_batch(64).decode_seconds(1) == 0.5


def test_text_that_no_model_computed_is_not_the_references() -> None:
    assert is_the_references(0, 40)
    assert is_the_references(2, 40)
    assert not is_the_references(30, 40)
    assert not is_the_references(None, 40)


def test_a_record_that_the_audit_refuted_earns_nothing_also_where_it_looked_at_a_sample() -> None:
    records = [logged(number) for number in range(4)]
    found = {
        one.counter: one.verified for one in served_records(records, {0: True, 1: False}, everything=False)
    }
    assert found == {0: True, 1: False, 2: True, 3: True}  # the sample's verdict is about the others as well
    found = {
        one.counter: one.verified for one in served_records(records, {0: True, 1: False}, everything=True)
    }
    assert found == {0: True, 1: False, 2: False, 3: False}
    for none in ({}, {1: False}):
        assert not any(one.verified for one in served_records(records, none, everything=False))


def test_a_record_that_never_closed_may_have_been_a_row_to_the_end() -> None:
    never = logged(0)
    never.close = None
    late = logged(1)
    late.close.time_closed = 9
    left, _ = served_records([never, late], {0: True, 1: True}, everything=True)
    assert (left.start, left.end, left.output, left.verified) == (0, 9, (), False)


def logged(number: int) -> SimpleNamespace:
    """A record of the log, as far as credit needs it."""
    opened = SimpleNamespace(counter=number, time_received=0, prompt_ids=(1,))
    return SimpleNamespace(open=opened, close=SimpleNamespace(time_closed=1, output_ids=(2,)))


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=5), st.lists(st.integers(0, 2), max_size=5))))
def test_credit_counts_distinct_prefixes(pairs: list[tuple[list[int], list[int]]]) -> None:
    records = [served(n, tuple(prompt), tuple(output)) for n, (prompt, output) in enumerate(pairs)]
    fed = [tuple(prompt) + tuple(output[:-1]) for prompt, output in pairs if output]
    distinct = {sequence[: n + 1] for sequence in fed for n in range(len(sequence))}
    assert sum(earned.new_prompt + earned.new_output for earned in credit(records, COSTS, 1)) == len(distinct)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}",
        '{"prefill": 1e-3, "decode": [], "operations": 1}',
        '{"prefill": 1e-3, "decode": [[4, 1e-3], [1, 1e-3]], "operations": 1}',
        '{"prefill": -1, "decode": [[1, 1e-3]], "operations": 1}',
    ],
)  # fmt: skip
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(MalformedError):
        read_inference(text.encode())
