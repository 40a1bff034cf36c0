"""What `ullage report` prints: a line for each fraction, with what would show it where nothing does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ullage.claims import TRUTH, Bound, Claim, Evidence, Interval, Reading, Trust, to_json
from ullage.errors import MalformedError, UsageError
from ullage.report.claim_view import figure
from ullage.report.documents import read_document
from ullage.report.fractions import fractions, worst
from ullage.report.report_page import Sources
from ullage.report.report_page import _slowdown as _given


def claim(name: str, value: float, bound: Bound, unit: str = "share") -> Claim:
    return Claim(
        name=name,
        value=value,
        unit=unit,
        bound=bound,
        confidence=0.99,
        evidence=Evidence.MEASURED,
        method="m",
    )  # fmt: skip


def test_a_fraction_says_what_would_show_it() -> None:
    tokens, unknown = fractions([claim("token.covert_fraction", 3e-5, Bound.UPPER)], Reading.INSPECTOR)[:2]
    assert tokens.line == "≤ 0.0030 % (within the bar: 0.01 %)"
    assert unknown.line == (
        "not shown: no claim wire.unexplained_fraction was given; `ullage wire meter` would tell"
    )


def test_yes_and_all_are_said_so() -> None:
    whole = claim("log.integrity", 1.0, Bound.LOWER, TRUTH)
    assert whole.render().startswith("log.integrity: yes at 0.99 (")
    assert whole.model_copy(update={"value": 0.0}).render().startswith("log.integrity: no ")
    assert figure(claim("log.coverage", 1.0, Bound.LOWER)) == "100 % at 99 %"
    assert figure(claim("log.coverage", 0.5, Bound.LOWER)) == "≥ 50 % at 99 %"


ESTIMATE = {"bound": Bound.ESTIMATE, "confidence": None}


def _slowdown(low: float, value: float, high: float | None) -> Claim:
    interval = Interval(low=low, high=high, confidence=0.9)
    return claim("training.slowdown", value, Bound.LOWER, "factor").model_copy(
        update={**ESTIMATE, "interval": interval}
    )


@pytest.mark.parametrize("turn", [1, -1])
def test_of_several_claims_the_one_that_constrains_least_is_shown_in_any_order(turn: int) -> None:
    slow, fast = _slowdown(20.0, 30.0, None), _slowdown(1.1, 1.3, 1.5)
    assert worst([slow, fast][::turn], "training.slowdown") == (fast, 1)
    said = claim("memory.resident_fraction", 0.99, Bound.LOWER).model_copy(
        update={**ESTIMATE, "interval": Interval(low=0.95, high=1.0, confidence=0.9)}
    )
    proven = claim("memory.resident_fraction", 0.3, Bound.LOWER)
    assert worst([said, proven][::turn], "memory.resident_fraction") == (proven, 1)
    guessed = claim("token.covert_fraction", 1e-4, Bound.UPPER).model_copy(
        update={**ESTIMATE, "interval": Interval(low=0.0, high=0.5, confidence=0.9)}
    )
    small = claim("token.covert_fraction", 1e-3, Bound.UPPER)
    assert worst([guessed, small][::turn], "token.covert_fraction") == (guessed, 1)


def test_a_slowdown_that_says_nothing_to_a_reader_is_not_said_to_be_missing() -> None:
    barred = _slowdown(1.1, 1.3, 1.5).model_copy(update={"trusts": (Trust.PROVER_KERNEL,)})
    sources = Sources((), extra_claims=(barred,))
    assert "inspectors nothing" in _given(sources, Reading.INSPECTOR).reason
    assert _given(sources, Reading.OPERATOR).claim == barred
    never = barred.model_copy(update={"trusts": (), "value": None, "unbounded": True, "interval": None})
    assert "unbounded" in _given(Sources((), extra_claims=(never,)), Reading.INSPECTOR).reason
    assert "was given" in _given(Sources(()), Reading.INSPECTOR).reason


def test_a_claim_with_characters_that_a_terminal_obeys_is_refused(tmp_path: Path) -> None:
    one = claim("token.covert_fraction", 3e-5, Bound.UPPER).model_copy(
        update={"inputs": {"model": "\x1b[2J"}}
    )
    (tmp_path / "claims.json").write_text(json.dumps({"version": 1, "claims": to_json([one])}))
    with pytest.raises(MalformedError, match="claim 1 has control characters"):
        read_document(tmp_path / "claims.json")


def test_what_is_not_there_and_what_is_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        read_document(tmp_path / "none.json")
    (tmp_path / "later.json").write_text('{"version": 2, "claims": []}')
    with pytest.raises(MalformedError, match="version 2; this program reads version 1"):
        read_document(tmp_path / "later.json")
