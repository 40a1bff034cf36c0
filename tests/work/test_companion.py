"""A companion beside the machine: what it takes out of an account, what it leaves, and what loses it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.work.helpers import SMALL, agent
from tests.work.test_account import FULL
from tests.work.test_calibration import MADE
from tests.work.test_claims import claimed
from ullage.audit.bundle.envelope import seal_payload
from ullage.claims import Bound, Evidence
from ullage.errors import FaultError
from ullage.log.keys import Role, create_keys, load_verifier_keys
from ullage.work.alarm import Alarm
from ullage.work.calibration import PAYLOAD_TYPE, Calibration, HonestWindows
from ullage.work.companion import kept_busy
from ullage.work.run import Accounting, Plan
from ullage.work.shape import Shape
from ullage.work.twin import measure_honest
from ullage.work.verifier import DEPTH, Terms
from ullage.work.window import COMPANION_CEILING, COMPANION_FLOOR, Outcome, Window, Worth, add_up

AGENT = "ullage.redteam.work.agent"
NAME = "compute.accounted_beside_companion"
LITTLE = Worth(0.0002, 0.00024, SMALL.operations)
"""Less than such a unit ever takes here, so that no window accounts for more than there is."""


def units(fraction: float, *, companion: float | None = None, steal: float = 0.0) -> Window:
    """A window of four slots that accounts for this fraction at median times."""
    return replace(FULL, credited=round(1200 * fraction), companion=companion, steal=steal)


def test_the_alarm_takes_the_account_over_the_companions() -> None:
    assert units(0.6, companion=0.8).judged == pytest.approx(0.75)
    assert units(0.6, companion=0.8, steal=0.3).judged == pytest.approx(0.75)
    assert units(0.6).judged == pytest.approx(0.6)
    assert units(0.6, steal=0.3).judged is None
    assert units(0.6, companion=COMPANION_FLOOR - 0.01).judged is None
    assert units(0.6, companion=0.0).judged is None
    assert units(0.9, companion=0.62).judged == pytest.approx(0.9 / 0.62)
    assert units(0.9, companion=0.45).judged is None  # something slowed it, and nothing the machine


def test_what_the_hypervisor_took_is_not_claimed_beside_a_companion_either() -> None:
    assert units(0.6, companion=0.6, steal=0.3).outcome is Outcome.CANNOT_TELL
    assert units(0.6, companion=0.6).outcome is Outcome.PASS
    assert units(0.6, companion=0.1).outcome is Outcome.CANNOT_TELL
    assert replace(units(0.6, companion=0.1), bad=1).outcome is Outcome.FAIL


def test_a_machine_and_a_companion_that_both_do_the_impossible_show_a_stale_calibration() -> None:
    """Calibrated in a slow minute: both do 1.3 times as much now, and nothing is wrong but the prices."""
    fast = units(1.3, companion=1.3)
    assert (fast.outcome, fast.is_impossible, fast.is_told) == (Outcome.PASS, False, True)
    assert fast.judged == pytest.approx(1.0)
    assert fast.accounted() == pytest.approx(1.0, abs=0.001)  # not 1.24: a unit is worth less now
    faster = units(1.4, companion=1.3)
    assert (faster.outcome, faster.is_impossible, faster.is_told) == (Outcome.CANNOT_TELL, False, False)
    alone = units(1.3, companion=1.0)
    assert (alone.outcome, alone.is_impossible) == (Outcome.FAIL, True)
    assert units(1.3).outcome is Outcome.FAIL
    assert replace(fast, bad=1).outcome is Outcome.FAIL
    assert NAME not in claimed(faster)
    found = claimed(units(0.9, companion=0.9), faster)["compute.accounted_fraction"]
    assert found.value == pytest.approx(0.9 * 0.18 / 0.2, abs=0.05)
    assert any("1 of them" in sentence for sentence in found.assumptions)


def test_idling_while_the_companion_is_the_faster_for_it_takes_no_window_out_of_the_account() -> None:
    """A machine that gives every second minute away, in which its companion has the caches for itself."""
    windows = [units(0.97, companion=0.97), units(0.3, companion=1.15)] * 5
    found = claimed(*windows)
    assert found["compute.accounted_fraction"].sample.startswith("10 of 10")
    fraction = found["compute.accounted_fraction"].value
    assert fraction is not None
    assert fraction < 0.95 * (0.97 + 0.3) / 2
    total = add_up(windows, 0.99)
    assert total.operations_priced < total.operations


def drifting(tenant: float, windows: int, seed: int) -> list[Window]:
    """A machine beside its companion. Speed falls and rises for minutes; each scatters by 1.5 % by itself."""
    generator = np.random.default_rng(seed)
    speed = 0.8 + 0.2 * np.sin(np.arange(windows) / 5 + generator.uniform(0, 6))
    own = generator.normal(1, 0.015, (2, windows))
    return [
        units(float(v * (1 - tenant) * mine), companion=float(v * other))
        for v, mine, other in zip(speed, *own, strict=True)
    ]


def beside(fractions: Sequence[float]) -> Alarm:
    honest = HonestWindows(seconds=60.0, companion_slots=4, fractions=tuple(fractions))
    return MADE.model_copy(update={"honest": honest}).alarm(60.0, DEPTH, beside=True)


def heard(windows: Sequence[Window], alarm: Alarm) -> int | None:
    alarm.add_all(windows)
    return alarm.fired_at


@pytest.mark.parametrize(("tenant", "limit"), [(0.2, 2), (0.1, 10)])
def test_drift_that_both_feel_neither_accuses_nor_hides(tenant: float, limit: int) -> None:
    accused_without = 0
    for seed in range(100):
        twin = [window.judged or 0.0 for window in drifting(0.0, 40, seed + 1000)]
        honest = drifting(0.0, 200, seed)
        assert heard(honest, beside(twin)) is None
        accused_without += heard([replace(one, companion=None) for one in honest], Alarm(0.97)) is not None
        assert heard(drifting(tenant, limit, seed), beside(twin)) is not None
    assert accused_without == 100


@given(st.floats(0.01, 0.6))
def test_who_slows_the_companion_hides_as_much_and_the_claim_says_so(share: float) -> None:
    """What the accounting cannot see, and therefore assumes."""
    hiding = [units(1 - share, companion=1 - share)] * 30
    assert heard(hiding, beside((1.0, 1.01, 0.99, 1.0))) is None
    found = claimed(*hiding)[NAME]
    assert found.value == pytest.approx(1, abs=0.01)
    assert any("nobody on the machine's side slowed it" in one for one in found.assumptions)


def test_who_slows_the_companion_far_more_than_it_hides_ends_the_verdict() -> None:
    slowed = [units(1.0, companion=0.6)] * 5
    assert {window.outcome for window in slowed} == {Outcome.CANNOT_TELL}
    assert claimed(*slowed)[NAME].value is None


def test_what_is_expected_beside_a_companion_never_rises() -> None:
    """Three windows in which something slowed the companion would accuse every honest one after them."""
    alarm = beside((1.0, 1.01, 0.99, 1.0, 1.0, 1.0))
    for _ in range(5):
        alarm.add(1.4)
    assert alarm.raised_at is None
    for _ in range(20):
        alarm.add(1.0)
    assert alarm.fired_at is None


def test_honest_windows_count_for_accounts_like_theirs_only() -> None:
    fractions = (0.9, 0.9, 0.9)
    for used in (True, False):
        honest = HonestWindows(seconds=60.0, companion_slots=4 if used else None, fractions=fractions)
        made = MADE.model_copy(update={"honest": honest})
        assert Calibration.from_bytes(made.to_bytes()) == made
        assert made.alarm(60.0, DEPTH, beside=used).expected == pytest.approx(0.9)
        assert made.alarm(60.0, DEPTH, beside=not used).expected > 0.96
    # A companion loses at the edges what the machine loses.
    assert MADE.alarm(60.0, DEPTH, beside=True).expected == pytest.approx(0.98)


def test_the_claim_is_the_account_over_what_the_companion_did() -> None:
    pair = (units(0.9, companion=1.0), units(0.46, companion=0.5))
    found = claimed(*pair)[NAME]
    assert found.value is not None
    assert found.value == pytest.approx(0.91, abs=0.01)
    assert found.value < 0.91  # less what the openings leave
    assert found.interval is not None
    assert found.interval.high is not None
    assert found.interval.high > 0.92
    assert (found.evidence, found.bound) == (Evidence.MEASURED, Bound.ESTIMATE)
    assert NAME not in claimed(units(0.9))


@pytest.mark.parametrize("companion", [0.0, 0.2])
def test_windows_without_their_companion_add_nothing_to_the_claim(companion: float) -> None:
    """Half of a machine, and a companion that was lost half of the time."""
    pair = (units(0.5, companion=1.0), units(0.5, companion=1.0))
    lost = units(0.5, companion=companion)
    assert claimed(*pair, lost, lost)[NAME].value == pytest.approx(0.5, abs=0.01)
    assert claimed(pair[0], lost)[NAME].value is None
    assert claimed(pair[0], lost)[NAME].evidence is Evidence.NOT_COVERED


def plan(machine: tuple[str, int], companion: tuple[str, int], windows: int, shape: Shape = SMALL) -> Plan:
    terms, beside_it = Terms(*machine, 1, shape), Terms(*companion, 1, shape)
    return Plan(terms, LITTLE, 1.0, windows, 20, 20, 2.0, companion=beside_it)


def test_a_tenant_shows_beside_a_companion() -> None:
    """Medians of pairs: both are slowed by whatever else runs here."""
    with agent(AGENT, "tenant-50") as cheater, agent(AGENT, "honest") as other:
        windows = list(Accounting(plan(cheater, other, 4, Shape(512, 2048, 512))).windows())
    ratios = [window.accounted(median=True) / window.companion for window in windows if window.companion]
    assert len(ratios) == 4
    assert 0.2 < float(np.median(ratios)) < 0.8


def test_a_companion_that_is_lost_is_named_and_the_account_goes_on() -> None:
    with agent(AGENT, "honest") as machine:
        with agent(AGENT, "honest") as other:
            account = Accounting(plan(machine, other, 3)).windows()
            first = next(account)
        second, third = list(account)
    assert first.companion is not None
    assert first.companion > 0
    assert any(finding.startswith("companion: slot 0 was lost") for finding in second.findings)
    assert third.companion == 0.0
    assert third.judged is None
    assert third.credited > 0
    assert third.outcome is Outcome.CANNOT_TELL


def test_a_companion_that_lost_a_slot_shows_nothing() -> None:
    """One of two slots is refused from the second window on: half of a companion would hide half a tenant."""
    with agent(AGENT, "honest") as machine, agent(AGENT, "honest", 2) as other:
        made = replace(plan(machine, other, 4), companion=Terms(*other, 2, SMALL))
        account = Accounting(made)
        windows = account.windows()
        first = next(windows)
        assert account._companion is not None
        account._companion._session._streams[1].close()
        rest = list(windows)
    assert first.companion is not None
    assert first.companion > 0
    broken = [window for window in rest if window.companion == 0.0]
    assert broken
    assert all(window.outcome is Outcome.CANNOT_TELL for window in broken)
    assert broken[0].findings[0].startswith("companion: slot 1 was lost")


def test_a_companion_with_fewer_slots_than_said_is_refused() -> None:
    with agent(AGENT, "honest") as machine, agent(AGENT, "honest") as other:
        made = replace(plan(machine, other, 1), companion=Terms(*other, 2, SMALL, connect_seconds=6.0))
        with pytest.raises(FaultError, match="on all of 2 slots"):
            list(Accounting(made).windows())
        # Its slots are free again.
        (window,) = Accounting(plan(machine, other, 1)).windows()
        assert window.companion


def test_late_units_of_a_companion_hide_nobody() -> None:
    with agent(AGENT, "honest") as machine, agent(AGENT, "honest") as other:
        late = Terms(*other, 1, SMALL, due_seconds=1e-4)
        (window,) = Accounting(replace(plan(machine, other, 1), companion=late)).windows()
    assert window.companion == 0.0
    assert any("came too late" in finding for finding in window.findings)


def test_it_works_while_the_machine_is_timed() -> None:
    with agent(AGENT, "honest") as other, agent(AGENT, "honest") as machine:
        with kept_busy(Terms(*other, 1, SMALL)) as session:
            assert session is not None
            latest = []
            for _ in range(3):
                time.sleep(0.7)
                latest.append(max(session.units))
            assert min(session.units) > latest[0]  # what is settled is forgotten
        assert all(later > sooner for sooner, later in pairwise(latest))
        # Its slot is free again.
        (window,) = Accounting(plan(machine, other, 1)).windows()
        assert window.companion
    with kept_busy(None) as nobody:
        assert nobody is None


def test_a_companion_that_is_not_there_or_is_lost_while_the_machine_is_timed_is_named() -> None:
    nowhere = Terms("127.0.0.1", 9, 1, SMALL, connect_seconds=0.5)
    with pytest.raises(FaultError, match="on all of 1 slots"), kept_busy(nowhere):
        pytest.fail("it is not there")
    with contextlib.ExitStack() as stack:
        busy = kept_busy(Terms(*stack.enter_context(agent(AGENT, "honest")), 1, SMALL))
        busy.__enter__()
        stack.close()
        time.sleep(0.5)
        with pytest.raises(FaultError, match="all the while: slot 0 was lost"):
            busy.__exit__(None, None, None)


@pytest.mark.slow
def test_honest_windows_beside_a_companion() -> None:
    made = MADE.model_copy(update={"slots": 1, "shape": str(SMALL)})
    with agent(AGENT, "honest") as other:
        found = measure_honest(made, 3, 1.0, companion=Terms(*other, 1, SMALL))
    assert found.companion_slots == 1
    assert len(found.fractions) == 3
    assert 0.5 < float(np.median(found.fractions)) < COMPANION_CEILING


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ullage", "work", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
def test_the_commands(tmp_path: Path) -> None:
    keys, path = tmp_path / "keys", tmp_path / "calibration.json"
    create_keys(keys, Role.ALL, "test.example/tap")
    quick = MADE.together.model_copy(update={"smallest": LITTLE.smallest, "median": LITTLE.median})
    made = MADE.model_copy(
        update={
            "slots": 1, "shape": str(SMALL), "kernels": MADE.kernels[:1], "sheet": None, "together": quick,
        }
    )  # fmt: skip
    path.write_bytes(seal_payload(made.to_bytes(), PAYLOAD_TYPE, load_verifier_keys(keys).verdict))
    key = ("--calibration-key", keys / "verdict.pub", "--seconds", 2, "--window", 1)
    with agent(AGENT, "honest") as machine, agent(AGENT, "honest") as other:
        here, there = (f"{host}:{port}" for host, port in (machine, other))
        unknown = run("account", here, "--calibration", path, *key, "--companion", there)
        assert (unknown.returncode, "--honest-windows 40" in unknown.stderr) == (2, True)
        honest = HonestWindows(seconds=1.0, companion_slots=1, fractions=(1.0, 1.0, 1.0))
        known = made.model_copy(update={"honest": honest})
        path.write_bytes(seal_payload(known.to_bytes(), PAYLOAD_TYPE, load_verifier_keys(keys).verdict))
        told = run("account", here, "--calibration", path, *key, "--companion", there)
        assert "companion " in told.stdout
        assert "compute.accounted_beside_companion" in told.stdout
        alone = run("account", here, "--calibration", path, *key)
        assert "without one they set no alarm" in alone.stderr
        assert "compute.accounted_beside_companion" not in alone.stdout
    new = ("--keys", keys, "--out", tmp_path / "new.json", "--machine", "m", "--slots", 1)
    for half in (("--companion", "127.0.0.1:9"), ("--companion-slots", 2)):
        refused = run("calibrate", *new, *half)
        assert (refused.returncode, "--honest-windows 40" in refused.stderr) == (2, True)
