"""A verdict on a page: what its statement may not say."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import pytest

from ullage.errors import MalformedError
from ullage.report.verdict_view import read_verdict

PREDICATE: dict[str, Any] = {
    "verdict": "pass",
    "reasons": ["All is well."],
    "rule": {"name": "ullage/mismatch-limit/v1", "limit": 0.02},
    "declaration": {"model": "sha256:0"},
    "sample": {"records": 3, "population": 4, "tokens": 50, "scheme": "all"},
    "created": "1795269954000000000",
}


def envelope(path: Path, predicate: object) -> Path:
    payload = base64.b64encode(json.dumps({"predicate": predicate}).encode()).decode()
    path.write_text(json.dumps({"payload": payload}))
    return path


def test_what_a_statement_says_is_shown(tmp_path: Path) -> None:
    view = read_verdict(envelope(tmp_path / "verdict", PREDICATE))
    assert (view.outcome, view.limit, view.records, view.tokens) == ("pass", 0.02, 3, 50)
    nothing = {"rule": {"name": "ullage/exact-transcript/v1", "limit": None}}
    assert read_verdict(envelope(tmp_path / "verdict", PREDICATE | nothing)).limit is None


ODD: dict[str, Any] = {
    "a declaration without names": {"declaration": []},
    "infinitely many records": {"sample": PREDICATE["sample"] | {"records": math.inf}},
    "no number of records": {"sample": PREDICATE["sample"] | {"records": math.nan}},
    "a sample that is none": {"sample": []},
    "an infinite time": {"created": math.inf},
    "a time of too many digits": {"created": "9" * 5000},
    "a limit that no float holds": {"rule": {"name": "x", "limit": 10**400}},
    "a limit that is no number": {"rule": {"name": "x", "limit": math.nan}},
    "a limit that is no share": {"rule": {"name": "x", "limit": 1e308}},
    "a rule that is none": {"rule": [1]},
    "no reasons": {"reasons": None},
}


@pytest.mark.parametrize("kind", ODD)
def test_a_statement_that_cannot_be_shown_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(MalformedError, match="not a verdict in a DSSE envelope"):
        read_verdict(envelope(tmp_path / "verdict", PREDICATE | ODD[kind]))


@pytest.mark.parametrize("predicate", [[], "pass", None, 3])
def test_what_is_no_statement_is_refused(tmp_path: Path, predicate: object) -> None:
    with pytest.raises(MalformedError, match="not a verdict in a DSSE envelope"):
        read_verdict(envelope(tmp_path / "verdict", predicate))
