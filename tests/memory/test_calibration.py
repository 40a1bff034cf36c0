"""The signed calibration's payload: its exact bytes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.memory.agents import CALIBRATION
from ullage.errors import MalformedError
from ullage.memory.calibration import Calibration

GOLDEN = Path(__file__).parent / "golden" / "calibration.json"


def test_golden_payload() -> None:
    payload = GOLDEN.read_bytes()
    assert CALIBRATION.payload() == payload
    assert Calibration.parse(payload, now=1) == CALIBRATION


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 1),
        ("version", 2),
        ("version", 3),
        ("version", 4),
        ("machine", "m" * 401),
        ("cores", 0),
        ("rebuild_rate", 0),
        ("rebuild_source", "guessed"),
        ("read_rate", -1.0),
        ("store_rate", 2e15),
        ("store_reads", -1.0),
        ("spot_rate", 0.0),
        ("step_seconds", 0.0),
        ("alternative_seconds", 4000),
        ("alternative_seconds", "1e-4"),
        ("alternative_seconds", None),
        ("expires", "-1"),
        ("expires", "1" * 21),
        ("fastest_step_seconds", 1e-6),
    ],
)
def test_another_value_is_refused_by_name(field: str, value: Any) -> None:
    document = {**json.loads(GOLDEN.read_bytes()), field: value}
    with pytest.raises(MalformedError, match=field):
        Calibration.parse(json.dumps(document).encode(), now=1)


@pytest.mark.parametrize("field", list(Calibration.model_fields))
def test_every_field_but_the_version_has_to_be_there(field: str) -> None:
    document = json.loads(GOLDEN.read_bytes())
    del document[field]
    payload = json.dumps(document).encode()
    if field == "version":
        assert Calibration.parse(payload, now=1) == CALIBRATION
        return
    with pytest.raises(MalformedError, match=field):
        Calibration.parse(payload, now=1)


def test_an_old_one_is_refused() -> None:
    last = int(CALIBRATION.expires)
    assert Calibration.parse(CALIBRATION.payload(), now=last) == CALIBRATION
    with pytest.raises(MalformedError, match="expired"):
        Calibration.parse(CALIBRATION.payload(), now=last + 1)
