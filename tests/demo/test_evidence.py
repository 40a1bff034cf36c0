"""What the demo computes from an audit's tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.audit.bounds.statistics import lower_bound
from ullage.audit.verdict import CONFIDENCE
from ullage.demo.evidence import AuditEvidence


def evidence(mismatch: list[bool], record: list[int] | None = None) -> AuditEvidence:
    count = len(mismatch)
    token = np.arange(count, dtype=np.int64)
    numbers = np.zeros(count, np.int64) if record is None else np.array(record, np.int64)
    return AuditEvidence(numbers, token, token + np.array(mismatch, np.int64), np.array(mismatch, np.float64))


@given(st.lists(st.booleans(), max_size=60), st.sampled_from([0.0002, 0.02, 0.3]))
def test_noticed_after_is_the_first_prefix_that_the_rule_fails(mismatch: list[bool], limit: float) -> None:
    found = evidence(mismatch).noticed_after(limit)
    fails = [
        count
        for count in range(1, len(mismatch) + 1)
        if lower_bound(sum(mismatch[:count]), count, CONFIDENCE) > limit
    ]
    assert found == (fails[0] if fails else None)


def test_the_typical_record_is_readable_and_has_a_mismatch_where_there_is_one() -> None:
    lengths, shares = [50, 50, 50, 5], [0.0, 0.1, 0.6, 1.0]
    mismatch = [
        index < share * length
        for length, share in zip(lengths, shares, strict=True)
        for index in range(length)
    ]
    record = [number for number, length in enumerate(lengths) for _ in range(length)]
    assert evidence(mismatch, record).typical_record() == 1


@pytest.mark.parametrize("mismatch", [[], [False] * 10])
def test_nothing_to_notice(mismatch: list[bool]) -> None:
    assert evidence(mismatch).noticed_after(0.02) is None
