"""`ullage redteam work`: every cheater's agent as processes, the real verifier against it, and what came out.

One calibration and one honest run come first, on the same machine and minute; the cheaters are held
against them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ullage.claims import Bound, Claim, Evidence, Interval, Trust
from ullage.errors import UndecidedError
from ullage.redteam.work.adversary import Catch, WorkAdversary
from ullage.redteam.work.agent import running_agent
from ullage.redteam.work.registry import HONEST
from ullage.work.alarm import Alarm
from ullage.work.calibration import Calibration, measure
from ullage.work.protocol import Mode
from ullage.work.run import Accounting, Plan
from ullage.work.shape import Shape
from ullage.work.verifier import Terms
from ullage.work.window import IMPOSSIBLE, Window

CONFIDENCE = 0.99
_BASELINES = 3
_SCATTER = 0.1


@dataclass(frozen=True)
class Size:
    """How much is played."""

    shape: Shape
    slots: int
    windows: int
    window_seconds: float
    openings: int


FULL = Size(Shape(1024, 4096, 1024), 1, 6, 5.0, 60)
QUICK = Size(Shape(512, 2048, 512), 1, 4, 1.5, 40)


@dataclass(frozen=True)
class Outcome:
    """One cheater against the verifier."""

    name: str
    summary: str
    hides: float
    expected: Catch
    caught_by: Catch | None
    windows_to_catch: int | None
    accounted: float
    honest: float
    """The honest run's accounted fraction, for comparison (at median times)."""
    bad_share: float
    """Lower figure: share of opened rows (or of checked products) that were wrong or never came."""
    units: int
    findings: tuple[str, ...]

    @property
    def is_caught(self) -> bool:
        return self.caught_by is not None

    @property
    def must_be_caught(self) -> bool:
        """5 % is below what the alarm is made for; a helper is the wire's business."""
        return self.expected is not Catch.WIRE and not (self.expected is Catch.ACCOUNT and self.hides < 0.1)

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "summary": self.summary,
            "hides": self.hides,
            "expected": self.expected.value,
            "caught": self.is_caught,
            "caught_by": self.caught_by and self.caught_by.value,
            "must_be_caught": self.must_be_caught,
            "windows_to_catch": self.windows_to_catch,
            "accounted": self.accounted,
            "accounted_honest": self.honest,
            "bad_share": self.bad_share,
            "units": self.units,
            "findings": list(self.findings),
        }


def run_suite(
    adversaries: Iterable[WorkAdversary], size: Size, progress: Callable[[str], None] = lambda name: None
) -> list[Outcome]:
    """Play each of them once."""
    calibration, honest = baseline(size, progress)
    outcomes = []
    for adversary in adversaries:
        progress(adversary.name)
        outcomes.append(challenge(adversary, calibration, honest, size))
    return outcomes


def baseline(size: Size, progress: Callable[[str], None]) -> tuple[Calibration, float]:
    """The calibration, and the honest fraction under it. Raises UndecidedError if the machine is not quiet.

    What else runs here looks like a tenant, or, during the calibration, like a machine that is slow.
    """
    for _ in range(_BASELINES):
        progress("calibration")
        calibration = measure("this machine", size.shape, size.slots, 2.0, None, repeats=3)
        progress(HONEST)
        windows = play(HONEST, Mode.OPENINGS, calibration, size)
        fractions = [window.accounted(median=True) for window in windows]
        if max(fractions) - min(fractions) < _SCATTER and max(fractions) < IMPOSSIBLE:
            return calibration, statistics.median(fractions)
    raise UndecidedError(
        "The honest prover's account scatters too much to judge anybody by: something else uses this "
        "machine. Run again when it is quiet."
    )


def play(name: str, mode: Mode, calibration: Calibration, size: Size) -> list[Window]:
    """Account for this agent's machine."""
    with running_agent(name, size.slots) as (host, port):
        terms = Terms(host, port, size.slots, size.shape, mode)
        plan = Plan(
            terms, calibration.worth, size.window_seconds, size.windows, size.openings, answer_seconds=5.0
        )
        return list(Accounting(plan).windows())


def challenge(adversary: WorkAdversary, calibration: Calibration, honest: float, size: Size) -> Outcome:
    """Run one cheater and say what caught it."""
    used = adversary.calibration(calibration)
    windows = play(adversary.name, adversary.mode, used, size)
    if adversary.catch is Catch.AUDIT:
        from ullage.redteam.work.declared import with_declared

        windows = with_declared(adversary.name, windows)
    caught, when = judge(windows, used, honest)
    if adversary.catch is Catch.AUDIT and caught is Catch.ACCOUNT:
        caught = Catch.AUDIT  # it is the audit that left the account short
    looked = sum(w.openings if w.openings else w.credited + w.bad + w.missing for w in windows)
    failed = sum(w.bad + w.missing for w in windows)
    return Outcome(
        name=adversary.name,
        summary=adversary.summary,
        hides=adversary.hides,
        expected=adversary.catch,
        caught_by=caught,
        windows_to_catch=when,
        accounted=statistics.median(w.accounted(median=True) for w in windows),
        honest=honest,
        bad_share=failed / looked if looked else 0.0,
        units=sum(w.credited for w in windows),
        findings=tuple(f for w in windows for f in w.findings)[:3],
    )


def judge(
    windows: Sequence[Window], calibration: Calibration, honest: float
) -> tuple[Catch | None, int | None]:
    """What gives it away first, and after how many windows."""
    if calibration.is_credible is False:
        return Catch.DATA_SHEET, 0
    alarm = Alarm(honest)
    for number, window in enumerate(windows, 1):
        if window.bad or window.missing:
            return (Catch.OPENINGS if window.openings else Catch.FULL_CHECK), number
        if window.accounted() > IMPOSSIBLE:
            return Catch.IMPOSSIBLE, number
        if alarm.add(window.accounted(median=True)):
            return Catch.ACCOUNT, number
    return None, None


def claims_of(outcomes: Iterable[Outcome]) -> list[Claim]:
    """What each cheater's account came to."""
    return [
        Claim(
            name="redteam.work.accounted",
            value=outcome.accounted,
            interval=Interval(low=0.0, high=max(outcome.accounted, outcome.honest), confidence=CONFIDENCE),
            unit="share of slot time",
            bound=Bound.ESTIMATE,
            evidence=Evidence.MEASURED,
            trusts=(Trust.VERIFIER,),
            subject=outcome.name,
            method="median over windows, at the median unit time",
            sample=f"{outcome.units} units; "
            + (f"caught by {outcome.caught_by.value}" if outcome.caught_by else "not caught"),
        )
        for outcome in outcomes
    ]


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """The lines to print."""
    lines = [
        f"{'adversary':<22} {'hides':>6} {'accounted':>10} {'honest':>7} "
        f"{'bad rows':>9} {'windows':>8}  caught by"
    ]
    for found in outcomes:
        when = "-" if found.windows_to_catch is None else str(found.windows_to_catch)
        by = found.caught_by.value if found.caught_by else "nothing"
        if not found.is_caught:
            by += "  NOT CAUGHT" if found.must_be_caught else f" (left to: {found.expected.value})"
        lines.append(
            f"{found.name:<22} {found.hides:>6.0%} {found.accounted:>10.3f} {found.honest:>7.3f} "
            f"{found.bad_share:>9.1%} {when:>8}  {by}"
        )
    return lines
