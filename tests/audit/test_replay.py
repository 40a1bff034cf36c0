"""Replay against what was sampled before an edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.audit.conftest import TAP_KEYS
from ullage.audit.replay import Replay
from ullage.audit.replay import replay as reproduce
from ullage.errors import MalformedError, UndecidedError, UsageError
from ullage.log.sealed.openers import load_opener

Logs = dict[str, Path]


def replay(log: Path, counter: int, model: Path) -> Replay:
    return reproduce(log, counter, model, opener=load_opener(TAP_KEYS[0]))


def test_the_unedited_answer_comes_back(logs: Logs, model: Path) -> None:
    """`float32` and `changed` were sampled alike, and only the latter was edited."""
    original = replay(logs["float32"], 2, model)
    changed = replay(logs["changed"], 2, model)
    assert original.first_difference is None
    assert changed.first_difference == 5
    assert changed.reference.ids == original.delivered.ids
    assert changed.reference.finish_reason == original.delivered.finish_reason


def test_an_answer_that_was_cut_short_is_compared_as_far_as_it_goes(logs: Logs, model: Path) -> None:
    assert replay(logs["client-gone"], 1, model).first_difference is None
    assert replay(logs["gone-and-changed"], 1, model).first_difference == 2
    early = replay(logs["stops-early"], 1, model)
    assert early.first_difference == 7, "a complete answer that ends too soon differs at its end"


def test_what_cannot_be_replayed_is_said(logs: Logs, model: Path) -> None:
    with pytest.raises(UndecidedError, match=r"no output \(upstream-failed\)"):
        replay(logs["failed"], 1, model)
    with pytest.raises(UsageError, match="no record 40"):
        replay(logs["small"], 40, model)
    with pytest.raises(MalformedError, match="outside the model's"):
        replay(logs["outside-vocabulary"], 1, model)
    with pytest.raises(UsageError, match="--model"):
        replay(logs["other-model"], 1, model)
