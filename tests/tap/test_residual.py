"""The residual's formulas, and the total over claims."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.claims import (
    Bound,
    Claim,
    Evidence,
    Interval,
    Trust,
    digest_of,
    read_claims,
    to_json,
    write_claims,
)
from ullage.errors import UsageError
from ullage.tap.pacing.grid import Pace
from ullage.tap.pacing.ledger import Allowance, seen_bits
from ullage.tap.pacing.schedule import read_sentence
from ullage.tap.residual import channels as residual
from ullage.tap.residual.total import Doors, Traffic, terms, total_claim

PACE = Pace(0.25, pad_to=64)


def test_lengths() -> None:
    assert residual.length_bits(256) == 8
    assert residual.length_bits(256, 64) == 2
    assert residual.length_bits(64, 64) == 0


def test_bar_is_met_with_the_default_allowance() -> None:
    channel = residual.allowed_channels(10_000, 1.0, Allowance(), PACE)
    assert channel.bits <= 0.5
    assert residual.share_of_message(channel.bits, 300, 2**17) <= 1e-4


@given(st.integers(1, 5000), st.integers(0, 50))
@settings(deadline=None)
def test_paced_residual_is_the_ledgers(messages: int, exceptions: int) -> None:
    observed = residual.Observed(messages, messages, exceptions)
    claim = residual.residual_claim(residual.paced_channels(observed, PACE), observed, paced=True)
    expected = seen_bits(messages, exceptions) / messages
    assert claim.value == pytest.approx(expected)
    assert claim.bound is Bound.UPPER


def test_without_slots_time_says_more_than_the_bar_allows() -> None:
    observed = residual.Observed(1000, 1000, 0)
    bits = sum(channel.bits for channel in residual.open_channels(observed, 600))
    assert bits > 19


@pytest.mark.parametrize(
    ("detail", "found"),
    [
        ("late by 8 slots in 2 steps; token ids not canonical from position 3", (2, 0)),
        ("late by 8 slots in 2 steps; 14 exceptions not the server's; the server hung up", (2, 14)),
        ("3 exceptions not the server's", (0, 3)),
        ("token ids not canonical from position 3", (0, 0)),
        ("the server said: late by 8 slots in 2 steps", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_counts_from_records(detail: str, found: tuple[int, int]) -> None:
    assert read_sentence(detail) == found


def _claim(name: str, value: float | None, unit: str = "bits", confidence: float = 0.99) -> Claim:
    return Claim(
        name=name, value=value, unit=unit, bound=Bound.UPPER, confidence=confidence, method="test/1",
        evidence=Evidence.NOT_COVERED if value is None else Evidence.MEASURED, trusts=(Trust.VERIFIER,),
    )  # fmt: skip


CLAIMS = [
    _claim("token.covert_capacity", 0.001),
    _claim("channel.residual", 0.5),
    _claim("wire.unexplained_fraction", 1e-6),
    _claim("log.coverage", 1.0),
]
TRAFFIC = Traffic.of_rates(600, 300, 200_000)
DOORS = Doors({"telemetry": 1000.0, "verdicts": 24.0})


def test_total_adds_up() -> None:
    claim = total_claim(CLAIMS, TRAFFIC, DOORS)
    tokens, messages, wire = 600 * 86_400, 2 * 86_400, 200_000 * 86_400
    assert claim.value == pytest.approx(0.001 * tokens + 0.5 * messages + 1e-6 * wire * 8 + 1024)
    assert claim.confidence == pytest.approx(0.97)
    assert Trust.VERIFIER in claim.trusts
    fleet = total_claim(CLAIMS, TRAFFIC, DOORS, racks=30_000)
    assert fleet.value == pytest.approx(30_000 * (claim.value or 0))


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_a_way_out_without_a_claim_is_not_zero(dropped: int) -> None:
    claims = [claim for index, claim in enumerate(CLAIMS) if index != dropped]
    assert total_claim(claims, TRAFFIC, DOORS).evidence is Evidence.NOT_COVERED
    claims.append(CLAIMS[dropped].model_copy(update={"value": None, "evidence": Evidence.NOT_COVERED}))
    assert total_claim(claims, TRAFFIC, DOORS).value is None


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bound", [Bound.LOWER, Bound.ESTIMATE])
def test_a_figure_that_is_no_upper_bound_covers_nothing(place: int, bound: Bound) -> None:
    interval = Interval(low=0.0, high=1.0, confidence=0.9)
    claims = list(CLAIMS)
    claims[place] = claims[place].model_copy(update={"bound": bound, "interval": interval})
    assert total_claim(claims, TRAFFIC, DOORS).value is None


def test_the_worst_class_counts_where_it_is_known() -> None:
    worst = _claim("token.covert_capacity_worst_class", 0.004)
    more = total_claim([worst, *CLAIMS], TRAFFIC, DOORS).value or 0
    assert more - (total_claim(CLAIMS, TRAFFIC, DOORS).value or 0) == pytest.approx(0.003 * 600 * 86_400)
    unknown = worst.model_copy(update={"value": None, "evidence": Evidence.NOT_COVERED})
    assert total_claim([unknown, *CLAIMS], TRAFFIC, DOORS).value == total_claim(CLAIMS, TRAFFIC, DOORS).value


def test_a_total_is_of_one_model_and_of_what_was_stated() -> None:
    one, other = (
        claim.model_copy(update={"inputs": {"model": model}})
        for claim, model in zip(CLAIMS[:2], ("sha256:1", "sha256:2"), strict=True)
    )
    found = total_claim([one, *CLAIMS[1:]], TRAFFIC, DOORS)
    assert found.inputs["model"] == "sha256:1"
    assert found.inputs["channel.residual"] == digest_of([CLAIMS[1]])
    assert any("stated here" in line for line in found.assumptions)
    with pytest.raises(UsageError, match="one model"):
        total_claim([one, other, CLAIMS[2]], TRAFFIC, DOORS)


def test_where_answers_were_cut_off_is_in_the_total() -> None:
    """An exact audit's token claim is of values alone; endings have a claim of their own."""
    endings = _claim("token.ending_capacity", 0.2)
    more = total_claim([*CLAIMS, endings], TRAFFIC, DOORS).value or 0
    assert more - (total_claim(CLAIMS, TRAFFIC, DOORS).value or 0) == pytest.approx(0.2 * 2 * 86_400)
    exact = CLAIMS[0].model_copy(update={"assumptions": ("Endings are token.ending_capacity's.",)})
    assert total_claim([exact, *CLAIMS[1:]], TRAFFIC, DOORS).value is None
    assert total_claim([exact, *CLAIMS[1:], endings], TRAFFIC, DOORS).value == pytest.approx(more)


def test_the_allowance_drips_over_all_days() -> None:
    month = residual.allowed_channels(10_000, 1.0, Allowance(), PACE, days=30)
    assert "at most 1896 of 10000" in month.because
    assert month.bits > 2 * residual.allowed_channels(10_000, 1.0, Allowance(), PACE).bits


def test_a_total_without_end_is_none() -> None:
    huge = Traffic.of_rates(1e308, 1e-3, 1e308)
    assert total_claim(CLAIMS, huge, DOORS).evidence is Evidence.NOT_COVERED


def test_no_way_out_pays_for_another() -> None:
    claims = [_claim("token.covert_capacity", -5.0), *CLAIMS[1:]]
    less = [_claim("token.covert_capacity", 0.0), *CLAIMS[1:]]
    assert total_claim(claims, TRAFFIC, DOORS).value == total_claim(less, TRAFFIC, DOORS).value


def test_of_several_claims_the_largest_counts() -> None:
    more = _claim("channel.residual", 0.7)
    assert total_claim([*CLAIMS, more], TRAFFIC, DOORS) == total_claim([more, *CLAIMS], TRAFFIC, DOORS)
    (term,) = [term for term in terms([*CLAIMS, more], TRAFFIC, DOORS) if term.name == "channel.residual"]
    assert term.claim == more


@given(st.integers(-5, 0))
@settings(deadline=None)
def test_no_fleet_of_nothing(racks: int) -> None:
    with pytest.raises(ValueError, match="at least one rack"):
        total_claim(CLAIMS, TRAFFIC, DOORS, racks)


def _total(folder: Path, *arguments: str) -> tuple[int, str]:
    write_claims(folder / "token.json", CLAIMS[:1])
    write_claims(folder / "wire.json", CLAIMS[1:])
    files = [str(folder / "token.json"), str(folder / "wire.json")]
    command = [
        sys.executable,
        "-m",
        "ullage",
        "total",
        *files,
        "--tokens",
        "600",
        "--message",
        "300",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_command_prints_a_rack_and_a_fleet(tmp_path: Path) -> None:
    doors = [f"--door={name}={bits}" for name, bits in
             {"telemetry": 1000, "verdicts": 24, "metrics": 0, "agents": 0}.items()]  # fmt: skip
    code, text = _total(tmp_path, *doors, "--racks", "30000", "--json", "--out", str(tmp_path / "total.json"))
    assert code == 0, text
    rack, fleet = read_claims(tmp_path / "total.json")
    assert rack.name == fleet.name == "total.covert_bits_per_day"
    assert rack.value == total_claim(CLAIMS, TRAFFIC, DOORS).value
    assert fleet.value == pytest.approx(30_000 * (rack.value or 0))
    assert json.loads(text)["terms"]["telemetry"] == 1000
    assert json.loads(text)["claims"] == to_json([rack, fleet])


def test_a_door_that_nobody_speaks_of_is_not_closed(tmp_path: Path) -> None:
    code, text = _total(tmp_path, "--door", "telemetry=5")
    assert code == 3
    assert "rack: total.covert_bits_per_day: not covered" in text
    code, text = _total(tmp_path, "--door", "telemetry=much")
    assert code == 2
    assert "Traceback" not in text
