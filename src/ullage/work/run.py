"""Accounting of a live machine: windows, openings, alarm.

The verifier's side of the protocol, in one process.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace

from ullage.errors import UsageError
from ullage.work import steal
from ullage.work.companion import Companion
from ullage.work.inference import Credit, within
from ullage.work.kernels import Kernel, default_kernel, one_thread
from ullage.work.openings import draw_rows, row_is_committed, true_rows
from ullage.work.protocol import Mode
from ullage.work.verifier import MAX_UNITS, Session, Terms
from ullage.work.window import HELD_UP_LIMIT, Unit, Window, Worth

_MAX_FINDINGS = 20
_MOST_UNITS = MAX_UNITS // 8
"""A slot's units in a window. The prover keeps the hashes of each until the window is over: about a gigabyte
at 2,048 rows."""


@dataclass(frozen=True)
class Plan:
    """What to run: how long, how many rows to open, what a unit is worth."""

    terms: Terms
    worth: Worth
    window_seconds: float = 60.0
    windows: int = 1
    openings: int = 360
    """Rows a window when it is full of filler; fewer, in proportion, when inference had the machine."""
    least_openings: int = 20
    answer_seconds: float = 10.0
    """Time for paths to come."""
    companion: Terms | None = None
    """Where the verifier's own agent listens that works beside the machine, if there is one."""


@dataclass(frozen=True)
class Costs:
    """What the verification took."""

    verifier_seconds: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0


class Accounting:
    """One run. Iterate over `windows`; `costs` grows meanwhile."""

    def __init__(self, plan: Plan, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Raises UsageError for windows with more units than a prover has to keep."""
        most = _MOST_UNITS * plan.worth.smallest
        if plan.window_seconds > most:
            raise UsageError(
                f"A slot may finish more than {_MOST_UNITS} units in a window of {plan.window_seconds:g} s; "
                f"take windows of {most:.0f} s or less, or calibrate with a larger --shape."
            )
        self.plan = plan
        self.costs = Costs()
        self._clock = clock
        self._session = Session(plan.terms, clock)
        self._companion = Companion(plan.companion, plan.worth, clock) if plan.companion else None
        self._kernel: Kernel = default_kernel(plan.terms.shape.inner)

    def windows(self) -> Generator[Window]:
        """Yields each window soon after its end, while the next one is running."""
        length = int(self.plan.window_seconds * 1e9)
        try:
            if self._companion:
                self._companion.start()
            self._session.start()
            start = self._clock()
            unix = time.time_ns() - time.monotonic_ns()
            before = steal.read()
            for index in range(self.plan.windows):
                end = start + length
                _sleep_until(self._clock, end)
                after = steal.read()
                taken = after.share_since(before) if before and after else None
                before = after
                yield self._close(index, start, end, start + unix, taken)
                start = end
        finally:
            with contextlib.ExitStack() as stack:  # the second is stopped even if the first fails to
                if self._companion:
                    stack.callback(self._companion.stop)
                stack.callback(self._session.stop)
            self.costs = replace(
                self.costs,
                bytes_sent=self._session.bytes_sent,
                bytes_received=self._session.bytes_received,
            )

    def _close(self, index: int, start: int, end: int, unix: int, taken: float | None) -> Window:
        plan, session = self.plan, self._session
        answered = session.answered_in(start, end)
        timely = [unit for unit in answered if not unit.late]
        beside, findings = self._companion.close(start, end) if self._companion else (None, [])
        held_up = session.take_held_up() / (plan.window_seconds * plan.terms.slots)
        if held_up > HELD_UP_LIMIT:
            findings.append(
                f"the verifier's own checks held the slots up for {held_up:.0%} of the time: check fewer "
                "slots with --full, calibrate with a larger K, or leave --full out"
            )
        findings += session.take_findings()
        if plan.terms.mode is Mode.FULL:
            session.settle_full_checks(timely, plan.answer_seconds)
            bad = sum(unit.checked is False for unit in timely)
            missing = sum(unit.checked is None for unit in timely)
            findings += [
                f"job {u.number}: C is not A B (slot {u.slot})" for u in timely if u.checked is False
            ]
            credited, openings = sum(unit.checked is True for unit in timely), 0
        else:
            credited = len(timely)
            openings, bad, missing = self._open_rows(timely, findings)
        session.forget_settled(end)
        return Window(
            index=index,
            start_unix=unix,
            seconds=plan.window_seconds,
            slots=plan.terms.slots,
            credited=credited,
            late=len(answered) - len(timely),
            openings=openings,
            bad=bad,
            missing=missing,
            worth=plan.worth,
            steal=taken,
            companion=beside,
            held_up=held_up,
            findings=tuple(findings[:_MAX_FINDINGS]),
        )

    @one_thread()
    def _open_rows(self, units: list[Unit], findings: list[str]) -> tuple[int, int, int]:
        """(opened, bad, missing) of rows drawn now, after every root of the window.

        Products of a few rows are too small to share among threads: where the verifier's cores are busy, or
        fewer than when torch was loaded, threads that spin for one another took up to 130 times as long.
        """
        plan, shape = self.plan, self.plan.terms.shape
        full = plan.window_seconds * plan.terms.slots / plan.worth.smallest
        count = max(plan.least_openings, math.ceil(plan.openings * min(1.0, len(units) / full)))
        draws = draw_rows(len(units), shape, count)
        self._session.ask([(units[draw.unit], draw.row) for draw in draws], plan.answer_seconds)
        bad = missing = 0
        began = time.thread_time()
        for number, group in itertools.groupby(draws, key=lambda draw: draw.unit):
            unit, rows = units[number], [draw.row for draw in group]
            expected = true_rows(unit.seed, shape, rows, self._kernel)
            for row, values in zip(rows, expected, strict=True):
                path = self._session.paths.get((unit.number, row))
                if path is None:
                    missing += 1
                    findings.append(f"job {unit.number}: the path of row {row} never came (slot {unit.slot})")
                elif not row_is_committed(values, row, shape, path, unit.root or b""):
                    bad += 1
                    findings.append(f"job {unit.number}: row {row} is not that of A B (slot {unit.slot})")
        spent = self.costs.verifier_seconds + time.thread_time() - began
        self.costs = replace(self.costs, verifier_seconds=spent)
        return len(draws), bad, missing


def with_inference(windows: Iterable[Window], earned: Sequence[Credit]) -> list[Window]:
    """The windows with what the log's verified inference earns in each."""
    return [
        replace(window, inference=within(earned, window.start_unix, window.end_unix)) for window in windows
    ]


def _sleep_until(clock: Callable[[], int], end: int) -> None:
    while (left := end - clock()) > 0:
        time.sleep(min(left / 1e9, 0.5))
