"""`ullage redteam work`: every cheater's agent as processes, the real verifier against it, and what came out.

A calibration and an honest run come first, and an honest run again at the end. An honest agent works beside
each of them as the verifier's companion, so that neighbours on the same hardware, who slow both, are not
taken for tenants.
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

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
from ullage.work.window import Window

CONFIDENCE = 0.99
_BASELINES = 3
_SCATTER = 0.15
"""Honest windows that lie further apart than this show nothing smaller than a tenant of 20 %."""
_BY_ABSENCE = frozenset({Catch.ACCOUNT, Catch.AUDIT})
"""Work that is missing accuses; a wrong row proves."""
_OF_THE_ACCOUNT = frozenset({Catch.ACCOUNT, Catch.AUDIT, Catch.WIRE})
"""Only these need windows so long that a few per cent show."""


@dataclass(frozen=True)
class Windows:
    """So many, of so many seconds."""

    count: int
    seconds: float


@dataclass(frozen=True)
class Size:
    """How much is played."""

    shape: Shape
    openings: int
    calibrate_seconds: float
    proofs: Windows
    """For what one wrong row or one impossible window gives away."""
    account: Windows
    """For what only shows as missing time."""

    def windows(self, catch: Catch) -> Windows:
        return self.account if catch in _OF_THE_ACCOUNT else self.proofs


FULL = Size(Shape(1024, 4096, 1024), 60, 10.0, Windows(3, 5.0), Windows(6, 20.0))
QUICK = Size(Shape(512, 2048, 512), 40, 5.0, Windows(2, 2.0), Windows(4, 10.0))


@dataclass(frozen=True)
class Ground:
    """What all of them are held against. There is no companion where there is no second processor."""

    size: Size
    slots: int
    has_companion: bool
    calibration: Calibration
    honest: tuple[float, ...]
    """What honest windows showed, over the companion's."""

    @property
    def expected(self) -> float:
        return statistics.median(self.honest)


@dataclass(frozen=True)
class Outcome:
    """One cheater against the verifier."""

    name: str
    summary: str
    hides: float
    expected: Catch
    caught_by: Catch | None
    windows_to_catch: int | None
    seconds_to_catch: float | None
    accounted: float | None
    """Over the companion's, at median times: the median window. None if no window showed it."""
    honest: float
    """The honest run's, for comparison."""
    bad_share: float
    """Lower figure: share of opened rows (or of checked products) that were wrong or never came."""
    units: int
    findings: tuple[str, ...]
    is_undecided: bool = False
    """No proof gave it away, and the account could not: too few windows were judged, or an honest agent was
    accused as well."""

    @property
    def is_caught(self) -> bool:
        return self.caught_by is not None

    @property
    def must_be_caught(self) -> bool:
        """5 % is below what the alarm is made for; a helper is the wire's business."""
        if self.is_undecided:
            return False
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
            "undecided": self.is_undecided,
            "windows_to_catch": self.windows_to_catch,
            "seconds_to_catch": self.seconds_to_catch,
            "accounted": self.accounted,
            "accounted_honest": self.honest,
            "bad_share": self.bad_share,
            "units": self.units,
            "findings": list(self.findings),
        }


@dataclass(frozen=True)
class Played:
    """What came out, and what honest windows showed before and after."""

    outcomes: tuple[Outcome, ...]
    honest_before: tuple[float, ...]
    honest_after: tuple[float, ...]
    is_honest_accused: bool
    """Whether the alarm sounded for the honest agent at the end: then the others' alarms prove nothing."""


def run_suite(
    adversaries: Iterable[WorkAdversary], size: Size, progress: Callable[[str], None] = lambda name: None
) -> Played:
    """Play each of them once. Raises UndecidedError if honest windows scatter too much."""
    cores = len(os.sched_getaffinity(0))
    slots = max(1, cores // 2)
    return _run(adversaries, size, slots, cores > 1, progress)


def _run(
    adversaries: Iterable[WorkAdversary],
    size: Size,
    slots: int,
    has_companion: bool,
    progress: Callable[[str], None],
) -> Played:
    ground = baseline(size, slots, has_companion, progress)
    outcomes = []
    for adversary in adversaries:
        progress(adversary.name)
        outcomes.append(challenge(adversary, ground))
    progress(HONEST)
    after = play(HONEST, Mode.OPENINGS, ground.calibration, ground, size.account)
    caught, _ = judge(after, ground.calibration, ground.expected)
    accused = caught is not None
    if accused or not _judged(after):
        outcomes = [_undecided(found) if found.caught_by in _BY_ABSENCE else found for found in outcomes]
    return Played(tuple(outcomes), ground.honest, _judged(after), accused)


def _undecided(outcome: Outcome) -> Outcome:
    return replace(outcome, is_undecided=True, caught_by=None, windows_to_catch=None, seconds_to_catch=None)


def baseline(size: Size, slots: int, has_companion: bool, progress: Callable[[str], None]) -> Ground:
    """The calibration, and honest windows under it.

    Raises UndecidedError if the alarm would sound for them: what else runs here looks like a tenant, or,
    during the calibration, like a machine that is slow.
    """
    for _ in range(_BASELINES):
        progress("calibration")
        calibration = measure("this machine", size.shape, slots, size.calibrate_seconds, None, repeats=3)
        progress(HONEST)
        ground = Ground(size, slots, has_companion, calibration, ())
        windows = play(HONEST, Mode.OPENINGS, calibration, ground, size.account)
        honest = _judged(windows)
        if len(honest) < max(2, size.account.count // 2) or max(honest) - min(honest) > _SCATTER:
            continue
        if judge(windows, calibration, statistics.median(honest))[0] is None:
            return Ground(size, slots, has_companion, calibration, honest)
    raise UndecidedError(
        "The honest prover's account scatters too much to judge anybody by: something else uses this "
        "machine. Run again when it is quiet."
    )


def _judged(windows: Iterable[Window]) -> tuple[float, ...]:
    return tuple(window.judged for window in windows if window.judged is not None)


def play(  # noqa: PLR0917 - what is played, and on what
    name: str,
    mode: Mode,
    calibration: Calibration,
    ground: Ground,
    wanted: Windows,
    beside: str = HONEST,
) -> list[Window]:
    """Account for this agent's machine, beside a companion, which is an agent of this name."""
    size, slots = ground.size, ground.slots
    with contextlib.ExitStack() as stack:
        terms = Terms(*stack.enter_context(running_agent(name, slots)), slots, size.shape, mode)
        companion = None
        if ground.has_companion:
            companion = Terms(*stack.enter_context(running_agent(beside, slots)), slots, size.shape)
        plan = Plan(
            terms, calibration.worth, wanted.seconds, wanted.count, size.openings, answer_seconds=5.0,
            companion=companion,
        )  # fmt: skip
        return list(Accounting(plan).windows())


def challenge(adversary: WorkAdversary, ground: Ground) -> Outcome:
    """Run one cheater and say what caught it."""
    used = adversary.calibration(ground.calibration)
    wanted = ground.size.windows(adversary.catch)
    windows = play(adversary.name, adversary.mode, used, ground, wanted, adversary.companion)
    if adversary.catch is Catch.AUDIT:
        from ullage.redteam.work.declared import with_declared

        windows = with_declared(adversary.name, windows)
    caught, when = judge(windows, used, ground.expected)
    if adversary.catch is Catch.AUDIT and caught is Catch.ACCOUNT:
        caught = Catch.AUDIT  # it is the audit that left the account short
    judged = _judged(windows)
    looked = sum(w.openings if w.openings else w.credited + w.bad + w.missing for w in windows)
    failed = sum(w.bad + w.missing for w in windows)
    return Outcome(
        name=adversary.name,
        summary=adversary.summary,
        hides=adversary.hides,
        expected=adversary.catch,
        caught_by=caught,
        windows_to_catch=when,
        seconds_to_catch=None if when is None else when * wanted.seconds,
        accounted=statistics.median(judged) if judged else None,
        honest=ground.expected,
        bad_share=failed / looked if looked else 0.0,
        units=sum(w.credited for w in windows),
        findings=tuple(f for w in windows for f in w.findings)[:3],
        is_undecided=caught is None and 2 * len(judged) < len(windows),
    )


def judge(
    windows: Sequence[Window], calibration: Calibration, honest: float
) -> tuple[Catch | None, int | None]:
    """What gives it away first, and after how many windows."""
    if calibration.is_credible is False:
        return Catch.DATA_SHEET, 0
    alarm = Alarm(honest, excess=math.inf)
    for number, window in enumerate(windows, 1):
        if window.bad:  # paths that never came prove nothing, and count as work that was not done
            return (Catch.OPENINGS if window.openings else Catch.FULL_CHECK), number
        if window.is_impossible:
            return Catch.IMPOSSIBLE, number
        if window.judged is not None and alarm.add(window.judged):
            return Catch.ACCOUNT, number
    return None, None


def claims_of(outcomes: Iterable[Outcome]) -> list[Claim]:
    """What each cheater's account came to."""
    return [
        Claim(
            name="redteam.work.accounted",
            value=outcome.accounted,
            interval=Interval(low=0.0, high=max(outcome.accounted, outcome.honest), confidence=CONFIDENCE),
            unit="share of what the companion did",
            bound=Bound.ESTIMATE,
            evidence=Evidence.MEASURED,
            trusts=(Trust.VERIFIER,),
            subject=outcome.name,
            method="median over windows, over what a companion did",
            sample=f"{outcome.units} units; "
            + (f"caught by {outcome.caught_by.value}" if outcome.caught_by else "not caught"),
        )
        for outcome in outcomes
        if outcome.accounted is not None
    ]


def table(played: Played) -> list[str]:
    """The lines to print."""
    lines = [
        f"{'adversary':<22} {'hides':>6} {'accounted':>10} {'honest':>7} "
        f"{'bad rows':>9} {'seconds':>8}  caught by"
    ]
    for found in played.outcomes:
        when = "-" if found.seconds_to_catch is None else f"{found.seconds_to_catch:g}"
        accounted = "-" if found.accounted is None else f"{found.accounted:.3f}"
        by = found.caught_by.value if found.caught_by else "nothing"
        if found.is_undecided:
            by = "cannot tell"
        elif not found.is_caught:
            by += "  NOT CAUGHT" if found.must_be_caught else f" (left to: {found.expected.value})"
        lines.append(
            f"{found.name:<22} {found.hides:>6.0%} {accounted:>10} {found.honest:>7.3f} "
            f"{found.bad_share:>9.1%} {when:>8}  {by}"
        )
    said = "ACCUSED, so missing work proves nothing here" if played.is_honest_accused else "not accused"
    before, after = _between(played.honest_before), _between(played.honest_after)
    return [*lines, f"honest windows: {before} before, {after} after, {said}"]


def _between(fractions: Sequence[float]) -> str:
    return f"{min(fractions):.3f} to {max(fractions):.3f}" if fractions else "none"
