"""Cheaters against the accounting of work, as processes: those whose catch needs no quiet machine."""

from dataclasses import replace

import pytest

from tests.work.helpers import account, agent
from tests.work.test_calibration import MADE
from ullage.errors import UsageError
from ullage.redteam.work.adversary import Catch, WorkAdversary
from ullage.redteam.work.declared import ANSWERS, with_declared
from ullage.redteam.work.not_run import HIDDEN, INVENTED, REPEATED
from ullage.redteam.work.registry import WORK_ADVERSARIES, find, prover_class
from ullage.redteam.work.suite import QUICK, Outcome, judge, run_suite, table
from ullage.work.calibration import Calibration
from ullage.work.prover import Prover
from ullage.work.shape import Shape
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
    outcomes: list[Outcome] = run_suite(find(["skipped-rows", "tenant-50"]), QUICK)
    assert all(outcome.is_caught for outcome in outcomes)
    assert len(table(outcomes)) == 3
    assert Shape(512, 2048, 512) == QUICK.shape
