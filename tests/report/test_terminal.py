"""What `ullage report` prints: a line for each fraction, with what would show it where nothing does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ullage.claims import TRUTH, Bound, Claim, Evidence, Reading
from ullage.errors import MalformedError, UsageError
from ullage.report.claim_view import figure
from ullage.report.documents import read_document
from ullage.report.fractions import fractions


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


def test_what_is_not_there_and_what_is_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        read_document(tmp_path / "none.json")
    (tmp_path / "later.json").write_text('{"version": 2, "claims": []}')
    with pytest.raises(MalformedError, match="version 2; this program reads version 1"):
        read_document(tmp_path / "later.json")
