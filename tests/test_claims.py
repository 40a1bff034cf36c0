"""Claims: what they refuse, how they read, and that files of them come back whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ullage.claims import (
    Bound,
    Claim,
    Evidence,
    Interval,
    Reading,
    Trust,
    digest_of,
    merge,
    read_claims,
    write_claims,
)
from ullage.errors import MalformedError


def claim(**changes: Any) -> Claim:
    values: dict[str, Any] = {
        "name": "token.mismatch_rate", "value": 0.25, "unit": "share of tokens", "bound": Bound.ESTIMATE,
        "interval": Interval(low=0.2, high=0.3, confidence=0.95), "evidence": Evidence.MEASURED,
        "trusts": (Trust.TAP, Trust.VERIFIER), "method": "teacher-forced/1",
    }  # fmt: skip
    return Claim(**(values | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"value": None},
        {"value": 0.5},
        {"interval": None},
        {"unbounded": True},
        {"name": "Not A Name"},
        {"value": float("nan")},
        {"evidence": "hearsay"},
        {"trusts": ("nobody",)},
        {"surprise": 1},
    ],
)
def test_a_claim_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        claim(**changes)


def test_an_inspector_does_not_see_what_rests_on_the_prover() -> None:
    ours = claim()
    theirs = claim(trusts=(Trust.TAP, Trust.PROVER_KERNEL))
    assert ours.read_as(Reading.INSPECTOR) == ours
    assert theirs.read_as(Reading.OPERATOR) == theirs
    hidden = theirs.read_as(Reading.INSPECTOR)
    assert (hidden.value, hidden.interval, hidden.evidence) == (None, None, Evidence.NOT_COVERED)
    assert "not covered" in hidden.render()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "0.25 share of tokens [0.2, 0.3] at 0.95"),
        ({"bound": Bound.UPPER, "interval": None, "confidence": 0.99}, "<= 0.25 share of tokens at 0.99"),
        ({"bound": Bound.LOWER, "interval": None}, ">= 0.25"),
        ({"bound": Bound.UPPER, "value": None, "unbounded": True, "interval": None}, "unbounded"),
    ],
)
def test_rendering_shows_the_direction(changes: dict[str, Any], expected: str) -> None:
    line = claim(**changes).render()
    assert expected in line
    assert "(measured; teacher-forced/1)" in line


@given(st.lists(st.floats(0.2, 0.3), max_size=5))
def test_a_file_of_claims_comes_back(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.mktemp("claims") / "claims.json"
    claims = tuple(claim(value=value) for value in values)
    write_claims(path, claims)
    assert read_claims(path) == claims


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2, "claims": []}', '{"version": 1, "claims": [{"name": "a.b"}]}']
)
def test_a_file_that_is_no_claims_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "claims.json"
    path.write_text(text)
    with pytest.raises(MalformedError, match=r"claims\.json is not a claims file"):
        read_claims(path)


@pytest.mark.parametrize("end", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_no_digest_can_have_are_refused(tmp_path: Path, end: str) -> None:
    path = tmp_path / "claims.json"
    write_claims(path, [claim()])
    for key, value in (("low", "0.2"), ("high", "0.3")):
        text = path.read_text()
        (tmp_path / "other.json").write_text(text.replace(f'"{key}": {value}', f'"{key}": {end}'))
        assert end in (tmp_path / "other.json").read_text()
        with pytest.raises(MalformedError):
            read_claims(tmp_path / "other.json")


def test_a_claim_that_is_not_covered_cannot_bring_a_value_along(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    write_claims(path, [claim()])
    path.write_text(path.read_text().replace('"measured"', '"not-covered"'))
    with pytest.raises(MalformedError, match="has no value"):
        read_claims(path)


@pytest.mark.parametrize("field", ["unit", "method", "subject", "sample", "assumptions", "inputs"])
@pytest.mark.parametrize("text", ["\x1b[2J\x1b[Hpass", "a\nverdict: pass", "\u202epass", "\x9b2J"])
def test_a_file_cannot_make_a_terminal_say_something_else(tmp_path: Path, field: str, text: str) -> None:
    value: Any = {"assumptions": (text,), "inputs": {"model": text}}.get(field, text)
    write_claims(tmp_path / "claims.json", [claim(**{field: value})])
    with pytest.raises(MalformedError, match="control characters"):
        read_claims(tmp_path / "claims.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="cannot be read"):
        read_claims(tmp_path / "nothing.json")


def test_digest_and_merge_follow_the_content() -> None:
    one, other = claim(), claim(value=0.26)
    assert digest_of([one]) == digest_of([claim()])
    assert digest_of([one]) != digest_of([other])
    assert digest_of([one, other]) != digest_of([other, one])
    assert merge([[one, other], [claim()]]) == (one, other)


def test_the_schema_is_json() -> None:
    assert json.loads(json.dumps(Claim.model_json_schema()))["title"] == "Claim"
