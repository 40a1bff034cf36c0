"""What a window of time adds up to: units credited, busy time, operations. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ullage.work.openings import largest_bad_share

STEAL_LIMIT = 0.02
"""Above this share taken away by the hypervisor a window says nothing."""
IMPOSSIBLE = 1.05
"""More than this share of a machine's time means that its calibration is wrong, or its inventory."""
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
    """Verified inference within a window.

    Busy seconds at smallest and median calibrated times, operations.
    """

    smallest: float = 0.0
    median: float = 0.0
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
    findings: tuple[str, ...] = field(default=())

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
        """Point estimate of verified busy time over wall time."""
        unit = self.worth.median if median else self.worth.smallest
        inference = self.inference.median if median else self.inference.smallest
        return (self.credited * unit * self.good_share + inference) / self.capacity

    @property
    def is_told(self) -> bool:
        """Whether the window says something: unless it fails, not if the hypervisor took time, nor if the
        calibration is stale.

        A window whose openings never came is told: what a prover holds back counts against it. If such
        windows were left out, it could choose what is judged.
        """
        stolen = self.steal is not None and self.steal > STEAL_LIMIT
        return not (stolen or self.is_stale) or self._is_failed

    @property
    def judged(self) -> float | None:
        """What the alarm takes: the account at median times, over the companion's where there is one.

        None if neither says how much an honest machine would have shown: the hypervisor took time and there
        is no companion, or that one was lost or slowed.
        """
        if self.companion is None:
            return self.accounted(median=True) if self.is_told else None
        if self.companion < COMPANION_FLOOR:
            return None
        ratio = self.accounted(median=True) / self.companion
        return ratio if ratio <= COMPANION_CEILING else None

    @property
    def outcome(self) -> Outcome:
        """`fail` on proof of cheating; `cannot-tell` when the hypervisor took time, the companion was lost,
        or rows that were asked for never came: a lost agent and one that hides look alike. The alarm judges
        the rest.
        """
        if self._is_failed:
            return Outcome.FAIL
        tells = self.is_told and self.judged is not None and not self.missing
        return Outcome.PASS if tells else Outcome.CANNOT_TELL

    @property
    def _is_failed(self) -> bool:
        return bool(self.bad) or self.is_impossible

    @property
    def is_impossible(self) -> bool:
        """Whether the machine did more than it can by its calibration, which its companion does not."""
        return self.accounted() > IMPOSSIBLE and not self.is_stale

    @property
    def is_stale(self) -> bool:
        """Whether the companion, too, did more than the calibration has for possible: hardware that several
        share was slower then. What the two did can still be compared."""
        if self.companion is None:
            return False
        return self.companion * self.worth.smallest / self.worth.median > IMPOSSIBLE


@dataclass(frozen=True)
class Total:
    """Lower bounds over several windows together."""

    capacity: float
    busy_smallest: float
    busy_median: float
    operations: float
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
    smallest = median = operations = 0.0
    for window in windows:
        kept = window.credited * (1.0 - bad_share)
        smallest += kept * window.worth.smallest + window.inference.smallest
        median += kept * window.worth.median + window.inference.median
        operations += kept * window.worth.operations + window.inference.operations
    return Total(capacity, smallest, median, operations, openings, failed, bad_share)
