"""Cheaters against the accounting of work, as processes: those whose catch needs no quiet machine."""

from dataclasses import replace

import pytest

from tests.work.helpers import account, agent
from tests.work.test_calibration import MADE
from ullage.errors import UndecidedError, UsageError
from ullage.redteam.work import suite
from ullage.redteam.work.adversary import Catch, WorkAdversary
from ullage.redteam.work.declared import ANSWERS, with_declared
from ullage.redteam.work.not_run import HIDDEN, INVENTED, REPEATED
from ullage.redteam.work.registry import WORK_ADVERSARIES, find, prover_class
from ullage.redteam.work.suite import QUICK, Played, judge, run_suite, table
from ullage.work.calibration import Calibration
from ullage.work.prover import Prover
from ullage.work.window import Outcome as WindowOutcome
from ullage.work.window import Window

AGENT = "ullage.redteam.work.agent"
FORGERS = [one for one in WORK_ADVERSARIES if one.catch.value in ("openings", "full check")]


FAST = ("skipped-rows", "shifted-by-p")
FORGERS_TO_RUN = [
    pytest.param(one, id=one.name, marks=() if one.name in FAST else pytest.mark.slow) for one in FORGERS
]


@pytest.mark.parametrize("one", FORGERS_TO_RUN)
def test_forgers_fail_the_first_window(one: WorkAdversary) -> None:
    with agent(AGENT, one.name) as address:
        (window,) = account(address, mode=one.mode, seconds=1.0, openings=60, answer_seconds=10.0)
    assert window.outcome is WindowOutcome.FAIL
    assert window.findings


def test_rows_that_are_held_back_count_against_who_holds_them_back() -> None:
    with agent(AGENT, "withheld-rows") as address:
        (window,) = account(address, seconds=1.0, openings=60, answer_seconds=5.0)
    assert window.bad == 0  # no proof
    assert window.missing > 0
    assert window.is_told  # or it could choose what is judged
    honest = replace(window, missing=0)
    assert window.accounted() == pytest.approx((1 - window.missing / window.openings) * honest.accounted())


def test_outsourced_work_is_not_seen_here() -> None:
    with agent(AGENT, "outsourced") as address:
        (window,) = account(address, seconds=0.6)
    assert window.credited > 0
    assert window.bad == window.missing == 0


def test_an_inflated_calibration_is_far_from_the_data_sheet() -> None:
    used: Calibration = find(["inflated-calibration"])[0].calibration(MADE)
    assert used.is_credible is False


def test_a_kernel_priced_too_high_accounts_for_more_than_there_is() -> None:
    honest = MADE.model_copy(
        update={"kernels": tuple(k for k in MADE.kernels if k.exact)},
    )
    used = find(["faster-kernel"])[0].calibration(honest)
    assert used.worth.smallest > 2 * honest.worth.smallest
    window = Window(0, 0, 60.0, 4, 1200, 0, 360, 0, 0, used.worth, companion=1.0)
    assert window.is_impossible
    assert judge([window], used, 1.0) == (Catch.IMPOSSIBLE, 1)
    assert judge([replace(window, worth=honest.worth)], honest, 1.0) == (None, None)


def test_rows_that_never_come_convict_nobody_and_count_as_work_not_done() -> None:
    """A lost agent and one that hides look alike: only what is missing from the account accuses."""
    one = Window(0, 0, 60.0, 4, 1200, 0, 360, 0, 1, MADE.worth, companion=1.0)
    assert judge([one] * 6, MADE, 1.0) == (None, None)
    assert judge([replace(one, missing=72)], MADE, 1.0) == (Catch.ACCOUNT, 1)


def test_names() -> None:
    assert prover_class("honest") is Prover
    assert len({one.name for one in WORK_ADVERSARIES}) == len(WORK_ADVERSARIES) == 19
    with pytest.raises(UsageError, match="no work adversary"):
        find(["nobody"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "earned"), [("served", HIDDEN), (INVENTED.name, 0.0), (REPEATED.name, HIDDEN / ANSWERS)]
)
def test_declared_inference_earns_what_was_run(name: str, earned: float) -> None:
    half = Window(0, 10**18, 60.0, 4, 600, 0, 360, 0, 0, MADE.worth)
    windows = with_declared(name, [half, replace(half, index=1, start_unix=10**18 + 60 * 10**9)])
    gained = [window.accounted(median=True) - half.accounted(median=True) for window in windows]
    assert sum(gained) / 2 == pytest.approx(earned, abs=0.002)
    caught, _ = judge(windows, MADE.model_copy(update={"sheet": None}), 1.0)
    assert caught is (None if name == "served" else Catch.ACCOUNT)


@pytest.mark.slow
def test_the_suite() -> None:
    played = run_suite(find(["skipped-rows", "tenant-50"]), QUICK)
    assert all(outcome.is_caught for outcome in played.outcomes)
    assert len(table(played)) == 4
    assert not played.is_honest_accused
    assert len(played.honest_before) == len(played.honest_after) == QUICK.account.count


def test_nobody_is_judged_where_honest_windows_would_be_accused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four windows, of which the last two show half of what the first two did."""
    full = Window(0, 0, 60.0, 4, 1200, 0, 360, 0, 0, MADE.worth, companion=1.0)
    windows = [full, full, *[replace(full, credited=600)] * 2]
    monkeypatch.setattr(suite, "measure", lambda *_, **__: MADE)
    monkeypatch.setattr(suite, "play", lambda *_: windows)
    with pytest.raises(UndecidedError, match="something else uses this machine"):
        suite.baseline(QUICK, 4, False, lambda _: None)
    monkeypatch.setattr(suite, "play", lambda *_: [full] * 4)
    assert suite.baseline(QUICK, 4, False, lambda _: None).honest == (1.0,) * 4


def test_an_honest_agent_that_is_accused_makes_the_table_worthless() -> None:
    played = Played((), (1.0, 0.99), (0.7, 0.6), True)
    assert "ACCUSED" in table(played)[-1]
    assert "0.600 to 0.700 after" in table(played)[-1]


@pytest.mark.parametrize(("after", "is_told"), [(1200, True), (600, False), (0, False)])
def test_missing_work_accuses_nobody_where_an_honest_agent_was_accused(
    monkeypatch: pytest.MonkeyPatch, after: int, is_told: bool
) -> None:
    """A tenant and a forger; then an honest agent that shows all, half, and one whose companion was lost."""
    full = Window(0, 0, 60.0, 4, 1200, 0, 360, 0, 0, MADE.worth, companion=1.0)
    shown = {
        "tenant-50": replace(full, credited=600),
        "skipped-rows": replace(full, bad=3),
        "honest": full,
    }
    seen: list[str] = []

    def play(name: str, *_: object) -> list[Window]:
        seen.append(name)
        if seen.count("honest") == 2:
            return [replace(full, credited=after, companion=1.0 if after else 0.0)] * 4
        return [shown[name]] * 4

    monkeypatch.setattr(suite, "measure", lambda *_, **__: MADE)
    monkeypatch.setattr(suite, "play", play)
    played = suite._run(find(["tenant-50", "skipped-rows"]), QUICK, 4, False, lambda _: None)
    found = {outcome.name: outcome for outcome in played.outcomes}
    assert found["skipped-rows"].is_caught
    assert found["tenant-50"].is_caught is is_told
    assert found["tenant-50"].is_undecided is not is_told
    assert not found["tenant-50"].must_be_caught or is_told
    assert any("cannot tell" in line for line in table(played)) is not is_told
