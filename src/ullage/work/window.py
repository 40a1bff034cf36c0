"""What a window of time adds up to: units credited, busy time, operations. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ullage.work.openings import largest_bad_share

STEAL_LIMIT = 0.02
"""Above this share taken away by the hypervisor a window says nothing."""
IMPOSSIBLE = 1.05
"""More than this share of a machine's time means that its calibration is wrong, or its inventory."""
HELD_UP_LIMIT = 0.02
"""Above this share of slot time lost to the verifier's own checks a window does not pass."""
COMPANION_CEILING = 1.5
"""A machine that did so many times as much as its companion shows that something slowed that one alone."""
COMPANION_FLOOR = 0.3
"""A companion that did less than this share of what the twin does in a window shows nothing: it was lost, or
the hypervisor took so much that a window is an accident."""


@dataclass
class Unit:
    """One job as the verifier saw it. Times are nanoseconds on the verifier's monotonic clock."""

    number: int
    slot: int
    seed: bytes
    issued: int
    answered: int | None = None
    root: bytes | None = None
    late: bool = False
    lost: bool = False
    checked: bool | None = None
    """Result of the full check, where the product travelled."""
    connection: int = 0
    """Of its slot, counted from 1: only there it is answered for."""

    def within(self, start: int, end: int) -> bool:
        """Issued and answered within: nothing of it can have been done before `start`."""
        return self.answered is not None and self.issued >= start and self.answered <= end


class Outcome(StrEnum):
    """What a window says."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    CANNOT_TELL = "cannot-tell"


@dataclass(frozen=True)
class Worth:
    """What one unit is worth: core-seconds (slot-seconds) and operations."""

    smallest: float
    median: float
    operations: int


@dataclass(frozen=True)
class Inference:
    """Verified inference within a window. Seconds are slot-seconds of busy time."""

    smallest: float = 0.0
    """The least that it can have cost: what is claimed."""
    shown: float = 0.0
    """What it usually costs a server that takes every open record along in each step: what the alarm takes,
    since no server has the schedule of the least."""
    inside: float = 0.0
    """Of `smallest`, that of records which were open in this window only: it was surely spent here."""
    operations: float = 0.0


@dataclass(frozen=True)
class Window:
    """One window's account."""

    index: int
    start_unix: int
    """Nanoseconds since 1970, for comparison with the log."""
    seconds: float
    slots: int
    credited: int
    late: int
    openings: int
    bad: int
    """Rows opened that were not the true ones."""
    missing: int
    """Rows asked for that never came."""
    worth: Worth
    inference: Inference = Inference()
    steal: float | None = None
    companion: float | None = None
    """What the companion accounted for meanwhile, at median times; None where there is none."""
    held_up: float = 0.0
    """Share of slot time lost to the verifier's own full checks."""
    findings: tuple[str, ...] = field(default=())

    @property
    def end_unix(self) -> int:
        """Nanoseconds since 1970: the first that is no longer in it."""
        return self.start_unix + int(self.seconds * 1e9)

    @property
    def capacity(self) -> float:
        """Slot-seconds that the machine had."""
        return self.seconds * self.slots

    @property
    def good_share(self) -> float:
        """Share of opened rows that were right: estimates the share computed.

        1 where every product was checked.
        """
        return 1.0 - (self.bad + self.missing) / self.openings if self.openings else 1.0

    def accounted(self, *, median: bool = False) -> float:
        """Point estimate of verified busy time over wall time.

        At the smallest times (`price`), with the least that inference can have cost, or at median ones, with
        what the log shows of it.
        """
        if median:
            return (self._units * self.worth.median + self.inference.shown) / self.capacity
        return self.price * (self._units * self.worth.smallest + self.inference.smallest) / self.capacity

    @property
    def _units(self) -> float:
        return self.credited * self.good_share

    @property
    def price(self) -> float:
        """What a second of smallest times is worth here, at most 1.

        A companion that does more than the smallest times have for possible shows that hardware is faster
        now than at the calibration, and by how much at least.
        """
        return 1.0 / max(1.0, self._companion_at_smallest)

    @property
    def _companion_at_smallest(self) -> float:
        return (self.companion or 0.0) * self.worth.smallest / self.worth.median

    @property
    def is_told(self) -> bool:
        """Whether the window says something: unless it fails, not if the hypervisor took time, or the machine
        did far more than a calibration that is stale.

        A window whose openings never came is told: what a prover holds back counts against it. If such
        windows were left out, it could choose what is judged. So could one that idles while its companion is
        the faster for it, if windows were left out for what the companion does.
        """
        stolen = self.steal is not None and self.steal > STEAL_LIMIT
        beyond = self.is_stale and self.accounted() > IMPOSSIBLE
        return not (stolen or beyond) or self._is_failed

    @property
    def judged(self) -> float | None:
        """What the alarm takes: the account at median times, over the companion's where there is one.

        None if neither says how much an honest machine would have shown: the hypervisor took time and there
        is no companion, or that one was lost or slowed. Time in which the verifier's own checks held slots
        up is excused, and no more: a prover that answers in bursts can bring it about.
        """
        shown = self.accounted(median=True) + self.held_up
        if self.companion is None:
            return shown if self.is_told else None
        if self.companion < COMPANION_FLOOR:
            return None
        ratio = shown / self.companion
        return ratio if ratio <= COMPANION_CEILING else None

    @property
    def outcome(self) -> Outcome:
        """`fail` on proof of cheating; `cannot-tell` when the hypervisor took time, the companion was lost,
        rows that were asked for never came (a lost agent and one that hides look alike), or the verifier's
        own checks held slots up. The alarm judges the rest.
        """
        if self._is_failed:
            return Outcome.FAIL
        tells = self.is_told and self.judged is not None and not self.missing
        tells = tells and self.held_up <= HELD_UP_LIMIT
        return Outcome.PASS if tells else Outcome.CANNOT_TELL

    @property
    def _is_failed(self) -> bool:
        return bool(self.bad) or self.is_impossible

    @property
    def is_impossible(self) -> bool:
        """Whether the machine did more than it can by its calibration, which its companion does not.

        Of inference only what was surely spent in this window: a record's is spread over its life, which may
        reach into others.
        """
        sure = self.price * (self._units * self.worth.smallest + self.inference.inside) / self.capacity
        return sure > IMPOSSIBLE and not self.is_stale

    @property
    def is_stale(self) -> bool:
        """Whether the companion, too, did more than the calibration has for possible: hardware that several
        share was slower then. What the two did can still be compared."""
        return self._companion_at_smallest > IMPOSSIBLE


@dataclass(frozen=True)
class Total:
    """Lower bounds over several windows together."""

    capacity: float
    busy_smallest: float
    busy_median: float
    operations: float
    operations_priced: float
    """The same at the price of each window (`Window.price`): what is held against the calibrated peak."""
    openings: int
    failed: int
    bad_share: float
    """Upper confidence bound of the share of rows that were not computed."""

    @property
    def fraction(self) -> float:
        return self.busy_smallest / self.capacity

    @property
    def fraction_median(self) -> float:
        return self.busy_median / self.capacity


def add_up(windows: list[Window], confidence: float) -> Total:
    """All windows as one, discounted by what the openings leave possible.

    With k_w openings over U_w units and a share x_w of them not computed, all pass with probability at most
    (1 - x)^K, x the mean of x_w weighted by k_w (AM-GM), K = sum k_w. What counts is the mean weighted by
    U_w, which is at most x * max(U_w / k_w) * K / sum U_w: the factor is 1 where rows are drawn in
    proportion to units.
    """
    capacity = sum(window.capacity for window in windows)
    openings = sum(window.openings for window in windows)
    failed = sum(window.bad + window.missing for window in windows)
    units = sum(window.credited for window in windows)
    bad_share = largest_bad_share(openings, failed, confidence) if openings else 0.0
    if openings:
        worst = max((w.credited / w.openings for w in windows if w.openings), default=0.0)
        bad_share = min(1.0, bad_share * worst * openings / units) if units else 1.0
    smallest = median = operations = priced = 0.0
    for window in windows:
        kept = window.credited * (1.0 - bad_share)
        smallest += window.price * (kept * window.worth.smallest + window.inference.smallest)
        median += window.price * (kept * window.worth.median + window.inference.smallest)
        done = kept * window.worth.operations + window.inference.operations
        operations += done
        priced += window.price * done
    return Total(capacity, smallest, median, operations, priced, openings, failed, bad_share)
