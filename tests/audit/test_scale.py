"""From a measured rate to a day's tokens: arithmetic that a reader can repeat."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audit.conftest import run_ullage
from ullage.audit.scale import Pace, machines_needed, scale
from ullage.cli.bench_scale import scale as command
from ullage.errors import UsageError

rates = st.floats(0.01, 1e7)
efficiencies = st.floats(0.05, 1.0)


def test_a_day_has_86400_seconds() -> None:
    rows = scale(Pace(100.0, 0.8), [1, 10, 1000], served_a_day=8.64e8)
    assert [row.tokens_a_day for row in rows] == pytest.approx([8.64e6, 6.912e7, 6.912e9])
    assert [row.share for row in rows] == pytest.approx([0.01, 0.08, 1.0])


@given(rates, efficiencies, st.floats(1, 1e15), st.floats(1e-6, 1.0))
def test_so_many_machines_do_it_and_fewer_do_not(
    rate: float, efficiency: float, served: float, share: float
) -> None:
    pace = Pace(rate, efficiency)
    needed = machines_needed(pace, served, share)
    if needed > 1_000_000:
        return
    (row,) = scale(pace, [needed])
    assert row.tokens_a_day >= served * share * (1 - 1e-9)
    if needed > 1:
        (fewer,) = scale(pace, [needed - 1])
        assert fewer.tokens_a_day < served * share * (1 + 1e-9)


@pytest.mark.parametrize(
    ("pace", "machines", "served"),
    [((0.0, 1.0), [1], None), ((float("nan"), 1.0), [1], None), ((1.0, 0.0), [1], None),
     ((1.0, 1.1), [1], None), ((1.0, 1.0), [0], None), ((1.0, 1.0), [1], 0.0)],
)  # fmt: skip
def test_what_is_no_rate_is_refused(
    pace: tuple[float, float], machines: list[int], served: float | None
) -> None:
    with pytest.raises(UsageError):
        scale(Pace(*pace), machines, served)


def test_the_command_prints_it() -> None:
    found = run_ullage(
        "bench", "scale", "--rate", "100", "--machines", "1, 10", "--served", "1e9", "--share", "0.1",
        "--json", expect=0,
    )  # fmt: skip
    document = json.loads(found.stdout)
    assert [row["machines"] for row in document["rows"]] == [1, 10]
    assert document["rows"][0]["tokens_a_day"] == 8_640_000
    assert document["machines_needed"] == 12


def test_a_row_a_number_of_machines(capsys: pytest.CaptureFixture[str]) -> None:
    command(rate=100.0, machines="1000")
    assert "8,640,000,000 tokens a day" in capsys.readouterr().out
    for machines in ("x", "1,,2", "-1", "1e3", ",".join("1" * 101)):
        with pytest.raises(UsageError, match="numbers with commas"):
            command(rate=1.0, machines=machines)
