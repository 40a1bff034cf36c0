"""The whole answer: the grid, the central claim, theft, sensitivity, and the two commands as processes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.memory.agents import agent
from ullage.claims import Bound, Claim, Evidence, Trust, to_json, write_claims
from ullage.slowdown.best_response import best_slowdown
from ullage.slowdown.central_claim import examine_claim, verdict
from ullage.slowdown.document import slowdown_claim
from ullage.slowdown.evaluation import DARK_SHARES, Quantiles, evaluate, evaluate_grid
from ullage.slowdown.parameters import draw
from ullage.slowdown.scenarios import ALL_BARS, BUILTIN, CLOSED, named
from ullage.slowdown.sensitivity import targets, tornado
from ullage.slowdown.slider_grid import AXES, cell
from ullage.slowdown.theft import days_in_the_open, days_to_leak, theft_table


def ullage(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ullage", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    page = tmp_path_factory.mktemp("page") / "page.html"
    result = ullage("slowdown", "--json", "--samples", "200")
    assert result.returncode == 0, result.stderr
    assert not page.exists()
    loaded: dict[str, Any] = json.loads(result.stdout)
    return loaded


def test_the_document_has_what_others_read(document: dict[str, Any]) -> None:
    assert {"claims", "scenarios", "strategies", "critical_batch"} <= set(document)
    names = {entry["name"] for entry in document["scenarios"]}
    assert names == {scenario.name for scenario in BUILTIN}
    assert len(document["scenarios"]) == len(BUILTIN) * len(DARK_SHARES)
    for entry in document["scenarios"]:
        assert {"name", "dark_share", "slowdown", "best_strategy", "binding_constraint"} <= set(entry)
        for key in ("slowdown", "throughput_slowdown"):
            values = [entry[key][part] for part in ("p05", "p50", "p95")]
            finite = [value for value in values if value is not None]
            assert finite == sorted(finite)
            assert all(value >= 1 - 1e-9 for value in finite)
    claims = {claim["name"]: claim for claim in document["claims"]}
    assert {"training.slowdown", "exfiltration.time"} <= set(claims)
    assert claims["training.slowdown"]["evidence"] == "simulated"
    assert any("not covered" in line for line in claims["training.slowdown"]["assumptions"])


def test_every_default_has_a_source(document: dict[str, Any]) -> None:
    assert all(entry["source"] for entry in document["assumptions"].values())
    tags = {entry["evidence"]["tag"] for entry in document["constraints"].values()}
    assert tags <= {"assumed", "default"}


def test_the_published_form_of_the_claim_fails_for_every_bar() -> None:
    """With declared rollouts open, no bar alone reaches ten."""
    for row in examine_claim(draw(500, 0)):
        assert row.verdict == "no"
        assert row.evaluation.best.name in ("mixed", "declared-rollouts")


def test_verdicts() -> None:
    assert verdict(Quantiles(10, 12, 20)) == "yes"
    assert verdict(Quantiles(2, 3, 9.9)) == "no"
    assert verdict(Quantiles(2, 12, 20)) == "cannot tell"
    assert verdict(Quantiles(math.inf, math.inf, math.inf)) == "yes"


def test_quantiles_keep_infinity_where_it_is() -> None:
    got = Quantiles.of(np.array([1.0] * 60 + [math.inf] * 40))
    assert (got.p05, got.p50, got.p95) == (1.0, 1.0, math.inf)


def test_more_verification_is_never_worse() -> None:
    """Across the built-in list, along each series of ever tighter bars."""
    series = [
        ["nothing verified", "cables pulled", "tap at 100 KB/s", "recomputation, 1 % unexplained",
         "recomputation, 0.5 % unexplained", "recomputation, 0.01 % unexplained", "all bars together",
         "all bars, quarterly updates, customers at 1 %"],
        ["tap at 100 KB/s", "wipes every 60 minutes", "wipes every 5 minutes", "wipes every minute"],
        ["work 80 %", "work 95 %", "work 99 %"],
        ["memory 80 %", "memory 95 %", "memory 99 %"],
    ]  # fmt: skip
    parameters = draw(300, 2)
    for names in series:
        found = evaluate_grid([named(name) for name in names], parameters, (0.05,))
        middles = [evaluation.throughput.p50 for evaluation in found]
        assert middles == sorted(middles), names


def test_a_target_is_reached_and_not_by_less() -> None:
    parameters = draw(100, 0)
    found = {(t.lever.name, t.slowdown): t for t in targets(CLOSED, parameters)}
    reached = found["dark_share", 10.0]
    assert reached.value is not None
    assert best_slowdown(reached.lever.apply(CLOSED, reached.value), parameters) >= 10 * (1 - 1e-6)
    assert best_slowdown(reached.lever.apply(CLOSED, reached.value * 1.1), parameters) < 10
    assert found["memory", 20.0].value is None


def test_the_tornado_names_what_moves() -> None:
    bars = tornado(ALL_BARS, samples=50)
    assert [bar.swing for bar in bars] == sorted((bar.swing for bar in bars), reverse=True)
    assert bars[0].label == "dark share"
    assert {bar.kind for bar in bars} == {"constraint", "assumption"}


def test_theft() -> None:
    assert days_to_leak(600e9, 100, 26e9 / 86_400) == pytest.approx(6 / 26)
    assert days_to_leak(1, 1, 0) == math.inf
    weights, *_ = theft_table(ALL_BARS)
    assert weights.fleet_days == pytest.approx(6e9 / (0.864e6 * 30_000))
    assert weights.rack_days == pytest.approx(weights.fleet_days * 30_000)


def test_who_does_not_mind_being_seen_fills_the_cap() -> None:
    size, cap = 600e9, ALL_BARS.egress * ALL_BARS.racks
    assert days_in_the_open(size, 100.0, ALL_BARS) == pytest.approx(6e9 / cap / 86_400)  # two seconds
    enforced = replace(ALL_BARS, enforced=True)
    assert days_in_the_open(size, 100.0, enforced) == days_to_leak(size, 100.0, cap * 1e-4)
    brief = replace(ALL_BARS, response_days=1 / 86_400)  # half of it leaves in the open, the rest before
    assert days_in_the_open(size, 100.0, brief) == pytest.approx(
        1 / 86_400 + (6e9 - cap) / (cap * 1e-4) / 86_400
    )
    closed = replace(ALL_BARS, response_days=0.0)
    assert days_in_the_open(size, 100.0, closed) == pytest.approx(theft_table(closed)[0].fleet_days)


def test_a_median_without_bound_keeps_what_some_draws_reach() -> None:
    evaluation = evaluate(named("all bars together").with_dark_share(0.05), draw(50, 0), details=False)
    claim = slowdown_claim("training.slowdown", Quantiles(1.8, math.inf, math.inf), evaluation, "")
    assert claim.unbounded
    assert claim.interval is not None
    assert (claim.interval.low, claim.interval.high) == (1.8, None)
    assert "1.8" in claim.render()
    never = slowdown_claim("training.slowdown", Quantiles(math.inf, math.inf, math.inf), evaluation, "")
    assert never.interval is None


def test_slider_cells_are_ordinary_scenarios() -> None:
    settings = [axis.stops[axis.start][1] for axis in AXES]
    parameters = draw(100, 0)
    assert best_slowdown(cell(*settings), parameters) == pytest.approx(best_slowdown(ALL_BARS, parameters))


def test_details_agree_with_the_grid() -> None:
    parameters = draw(100, 0)
    scenario = named("all bars together").with_dark_share(0.05)
    whole, short = evaluate(scenario, parameters), evaluate(scenario, parameters, details=False)
    assert whole.throughput == short.throughput
    assert sum(row.best_in for row in whole.strategies) == pytest.approx(1)


def test_the_command_takes_a_scenario_and_claims(tmp_path: Path) -> None:
    scenario, claims = tmp_path / "hall.yaml", tmp_path / "claims.json"
    scenario.write_text("version: 1\nname: hall\nfleet: {dark_share: 0.02, response_days: 3}\n", "utf-8")
    claim = Claim(name="memory.resident_fraction", value=None, unit="share", bound=Bound.LOWER, method="m/v1",
                  evidence=Evidence.NOT_COVERED)  # fmt: skip
    write_claims(claims, [claim])
    result = ullage("slowdown", str(scenario), "--claims", str(claims), "--samples", "100")
    assert result.returncode == 0, result.stderr
    assert "UNCONSTRAINED: memory.resident_fraction is not covered" in result.stdout
    assert "dark share 0.02" in result.stdout


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\nfleet:\n  dark_share: 2\n", "utf-8")
    result = ullage("slowdown", str(wrong))
    assert result.returncode == 2
    assert f"{wrong}:3:" in result.stderr
    assert "Traceback" not in result.stderr
    assert ullage("slowdown", "--samples", "1").returncode == 2
    assert ullage("fleet", "--racks", "0").returncode == 2


def test_inconsistent_input_is_refused_with_the_line_or_claim_at_fault(tmp_path: Path) -> None:
    """Negative shares, a wipe longer than its period, claims of another model: exit 2, no figure printed."""
    scenario, claims = tmp_path / "hall.yaml", tmp_path / "claims.json"
    ours, theirs = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    wiped = "version: 1\nmodel: " + ours + "\nmemory:\n  wipe_period: 60\n  wipe_cycle: 20\n"

    def refused(text: str, *given: Claim) -> str:
        scenario.write_text(text, "utf-8")
        write_claims(claims, given)
        result = ullage("slowdown", str(scenario), "--claims", str(claims), "--samples", "50")
        assert result.returncode == 2, result.stdout
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return " ".join(result.stderr.split())  # the terminal's width breaks lines

    def one(name: str, value: float, bound: Bound = Bound.LOWER, model: str = ours) -> Claim:
        return Claim(name=name, value=value, unit="", bound=bound, method="m/v1", evidence=Evidence.PROVEN,
                     inputs={"model": model})  # fmt: skip

    assert f"{scenario}:3: dark_share is a share" in refused("version: 1\nfleet:\n  dark_share: -0.1\n")
    assert f"{scenario}:5: wipe_cycle is not shorter" in refused(wiped.replace("20", "61"))
    held = one("memory.resident_fraction", 0.9)
    alien = one("memory.erased_fraction", 0.9, model=theirs)
    assert f"{claims}: claim 2 (memory.erased_fraction) is about the model" in refused(wiped, held, alien)
    slow = one("memory.wipe_cycle", 61.0, Bound.UPPER)
    assert f"{claims}: claim 2 (memory.wipe_cycle: 61) does not fit" in refused(wiped, held, slow)
    assert "claim 1 (compute.accounted_fraction: -0.2) is negative" in refused(
        wiped, one("compute.accounted_fraction", -0.2)
    )


def test_claims_of_several_documents_are_taken_together(tmp_path: Path) -> None:
    """An audit's folder, a claims.json, and what a command printed with --json, each named in complaints."""

    def one(name: str, value: float) -> Claim:
        return Claim(name=name, value=value, unit="share", bound=Bound.LOWER, method="m/v1",
                     evidence=Evidence.PROVEN, trusts=(Trust.VERIFIER,))  # fmt: skip

    (tmp_path / "audit").mkdir()
    write_claims(tmp_path / "audit/claims.json", [one("compute.accounted_fraction", 0.8)])
    write_claims(tmp_path / "work.json", [one("compute.accounted_flop", 0.7)])
    printed = {"claims": to_json([one("memory.resident_fraction", 0.6)]), "verdict": "pass", "rounds": []}
    (tmp_path / "held.json").write_text(json.dumps(printed), "utf-8")
    given = [
        part for name in ("audit", "work.json", "held.json") for part in ("--claims", str(tmp_path / name))
    ]
    result = ullage("slowdown", *given, "--samples", "50", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    for field, value in (("accounted_time", 0.8), ("accounted_operations", 0.7), ("resident_memory", 0.6)):
        assert document["constraints"][field]["value"] == value
        assert document["constraints"][field]["evidence"]["tag"] == "proven-under-assumption"
    assert document["claims"][0]["trusts"] == ["verifier"]
    printed["claims"] = to_json([one("memory.erased_fraction", 0.6), one("memory.resident_fraction", -1.0)])
    (tmp_path / "held.json").write_text(json.dumps(printed), "utf-8")
    wrong = ullage("slowdown", *given, "--samples", "50")
    assert wrong.returncode == 2
    assert f"{tmp_path / 'held.json'}: claim 2" in wrong.stderr.replace("\n", " ")


@pytest.mark.slow
def test_a_real_erasure_reaches_the_answer_with_whom_it_trusts(tmp_path: Path) -> None:
    """Calibrate, erase a small region of this machine, and feed what was printed to the slowdown."""
    keys, twin, erased = str(tmp_path / "keys"), str(tmp_path / "twin.json"), tmp_path / "erased.json"
    scenario = tmp_path / "hall.yaml"
    scenario.write_text(
        "version: 1\nfleet: {dark_share: 0.05}\nnetwork: {egress: 100000, ingress: 100000}\n"
        "tokens: {covert_fraction: 0.0001}\nmemory: {wipe_period: 60, wipe_cycle: 20}\n", "utf-8"
    )  # fmt: skip
    assert ullage("keys", "init", keys, "--role", "verifier").returncode == 0
    assert ullage("memory", "calibrate", "--keys", keys, "--out", twin, "--region-mib", "16").returncode == 0
    with agent() as address:
        how = ("--keys", keys, "--calibration", twin, "--size-mib", "8", "--json")
        found = ullage("memory", "erase", address, *how)
    assert found.returncode in (0, 3), (
        found.stderr
    )  # a busy machine may answer too late: then nothing is proven
    erased.write_text(found.stdout, "utf-8")
    proven = json.loads(found.stdout)["claims"][0]
    given = ("slowdown", str(scenario), "--claims", str(erased), "--samples", "50", "--json")
    readings = ("operator", "inspector")
    seen = {reading: json.loads(ullage(*given, "--reading", reading).stdout) for reading in readings}
    constraint = seen["operator"]["constraints"]["erased"]
    assert constraint["value"] == proven["value"]
    assert constraint["evidence"]["tag"] == proven["evidence"]
    assert set(seen["operator"]["claims"][0]["trusts"]) == set(proven["trusts"])
    # The machine's size is its own word, so an inspector has no wipe to build on.
    assert "prover-kernel" in proven["trusts"]
    assert seen["inspector"]["constraints"]["erased"]["value"] == 0
    assert any("memory.erased_fraction is not covered" in w for w in seen["inspector"]["detail"]["warnings"])


def test_a_claim_that_nothing_covers_frees_its_strategy_in_the_answer(tmp_path: Path) -> None:
    """The built-in bars without their resident memory: printed first, and no figure of the bar is left."""
    scenario, claims = tmp_path / "hall.yaml", tmp_path / "claims.json"
    scenario.write_text(
        "version: 1\nfleet: {dark_share: 0.05}\nnetwork: {egress: 100000, ingress: 100000}\n"
        "compute: {accounted_time: 0.95, accounted_operations: 0.95}\n", "utf-8"
    )  # fmt: skip
    blind = Claim(name="compute.accounted_flop", value=None, unit="share", bound=Bound.LOWER, method="m/v1",
                  evidence=Evidence.NOT_COVERED)  # fmt: skip
    write_claims(claims, [blind])
    arguments = ("slowdown", str(scenario), "--samples", "50", "--json")
    proven = json.loads(ullage(*arguments).stdout)
    freed = json.loads(ullage(*arguments, "--claims", str(claims)).stdout)

    def used(document: dict[str, Any]) -> float:
        rows = {row["name"]: row["usable_share"]["p50"] for row in document["strategies"]}
        return float(rows["slack"])

    assert used(freed) > 5 * used(proven)
    assert any("compute.accounted_flop is not covered" in line for line in freed["detail"]["warnings"])
    assert freed["detail"]["evidence"] == "not-covered"
    assert any("not covered" in line for line in freed["claims"][0]["assumptions"])


def test_the_fleet_command() -> None:
    result = ullage("fleet", "--racks", "500", "--days", "5", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["cost"][0]["drawn"] >= 1
    assert found["claims"]
    text = ullage("fleet", "--racks", "500", "--days", "5").stdout
    assert "verifier hardware" in text


def test_claims_of_games_are_refused(tmp_path: Path) -> None:
    claims = to_json([Claim(
        name="token.covert_fraction", value=0.0, unit="share", bound=Bound.UPPER, confidence=0.99,
        evidence=Evidence.MEASURED, method="test/v1",
    )])  # fmt: skip
    game = {"version": 1, "claims": claims, "adversaries": [{"name": "a", "leaked_bits_per_token": 1.0}]}
    (tmp_path / "game.json").write_text(json.dumps(game))
    refused = ullage("slowdown", "--claims", str(tmp_path / "game.json"), "--samples", "200")
    assert refused.returncode == 2
    assert "red team" in refused.stderr
