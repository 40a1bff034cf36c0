"""The four unaccounted fractions against their bars, for one reader, from claims.

tokens   token.covert_fraction            upper bound as it is          bar 0.01 %
bytes    wire.unexplained_fraction        upper bound as it is          bar 0
memory   1 - memory.resident_fraction     lower bound, turned around    bar 5 %
         (1 - memory.erased_fraction where nothing speaks of residency)
compute  1 - compute.accounted_fraction   lower bound, turned around    bar 5 %

Of several claims of one name the one that constrains least counts, and one that says nothing constrains
least of all. A claim that rests on more than its reader allows says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ullage.claims import Bound, Claim, Evidence, Reading
from ullage.report.words import percent

_AXIS_LOW = 1e-6
_AXIS_ZERO = 6.0  # per cent of the picture's width that stand for 0


class Standing(StrEnum):
    """How a fraction stands against its bar."""

    WITHIN = "within"
    ABOVE = "above"
    MISSING = "missing"

    @property
    def words(self) -> str:
        return {"within": "within the bar", "above": "bar not reached", "missing": "not shown"}[self.value]


@dataclass(frozen=True)
class Source:
    """A claim's name, whether it speaks of what is accounted for (then 1 - value counts), and its command."""

    name: str
    meaning: str
    inverted: bool
    command: str


@dataclass(frozen=True)
class Measure:
    """One of the four: where it comes from, in order of preference, and its bar (a share)."""

    key: str
    label: str
    bar: float
    sources: tuple[Source, ...]


MEASURES = (
    Measure("tokens", "Tokens", 1e-4, (
        Source("token.covert_fraction", "of the output's bits could be covert, by choice of tokens", False,
               "ullage audit LOG --calibration FILE"),)),
    Measure("bytes", "Bytes", 0.0, (
        Source("wire.unexplained_fraction", "of the bytes on the wire are explained by no record", False,
               "ullage wire meter"),)),
    Measure("memory", "Memory", 0.05, (
        Source("memory.resident_fraction", "of memory is not proven to hold declared state", True,
               "ullage memory hold"),
        Source("memory.erased_fraction", "of memory is not proven overwritten by a wipe", True,
               "ullage memory cycle"))),
    Measure("compute", "Compute", 0.05, (
        Source("compute.accounted_fraction", "of compute time is not shown to be declared work", True,
               "ullage work account"),)),
)  # fmt: skip


@dataclass(frozen=True)
class Fraction:
    """One unaccounted fraction as a reader may see it. Shares; `high` is what is held against the bar."""

    measure: Measure
    source: Source
    standing: Standing
    low: float | None
    high: float | None
    claim: Claim | None
    reason: str
    """Why nothing is shown; empty where something is."""
    others: int
    """Further claims of the same name, which constrain more."""

    @property
    def figure(self) -> str:
        if self.high is None:
            return "not shown"
        if self.high == 0:
            return "0 %"
        return (
            f"≤ {percent(self.high)}" if self.low is None else f"{percent(self.low)} to {percent(self.high)}"
        )

    @property
    def line(self) -> str:
        """The fraction in a terminal: its figure and standing, or why there is none and what would tell."""
        if self.high is None:
            return f"not shown: {self.reason}; `{self.source.command}` would tell"
        return f"{self.figure} ({self.standing.words}: {self.bar_words})"

    @property
    def bar_words(self) -> str:
        return f"{100 * self.measure.bar:g} %" if self.measure.bar else "0"

    @property
    def confidence(self) -> float | None:
        if self.claim is None:
            return None
        return self.claim.interval.confidence if self.claim.interval else self.claim.confidence


def worst(claims: Iterable[Claim], name: str) -> tuple[Claim | None, int]:
    """The claim of this name that constrains least, and how many others there are."""
    found = [claim for claim in claims if claim.name == name]
    if not found:
        return None, 0
    blind = [claim for claim in found if claim.value is None]
    if blind:
        return blind[0], len(found) - 1
    lower = name.startswith(_MORE_IS_TIGHTER) or any(claim.bound is Bound.LOWER for claim in found)
    chosen = min(found, key=_low_end) if lower else max(found, key=_high_end)
    return chosen, len(found) - 1


_MORE_IS_TIGHTER = ("training.", "exfiltration.")
"""Of these an estimate that is larger constrains more."""


def _low_end(claim: Claim) -> float:
    """Of an estimate the lower end of its interval."""
    if claim.bound is Bound.ESTIMATE and claim.interval is not None:
        return -math.inf if claim.interval.low is None else claim.interval.low
    return claim.value or 0.0


def _high_end(claim: Claim) -> float:
    if claim.bound is Bound.ESTIMATE and claim.interval is not None:
        return math.inf if claim.interval.high is None else claim.interval.high
    return claim.value or 0.0


def fraction(measure: Measure, claims: Sequence[Claim], reading: Reading) -> Fraction:
    """What this reader is shown of one measure."""
    read = [claim.read_as(reading) for claim in claims]
    best: Fraction | None = None
    for source in measure.sources:
        claim, others = worst(read, source.name)
        found = _from_claim(measure, source, claim, others)
        if claim is not None and claim.value is None:
            original = next(
                one for one in claims if one.name == source.name and one.read_as(reading) == claim
            )
            found = _without(measure, source, _why(original, reading), original, others)
        if found.high is not None:
            return found
        if best is None or (best.claim is None and found.claim is not None):
            best = found
    assert best is not None  # noqa: S101 - every measure has a source
    return best


def fractions(claims: Sequence[Claim], reading: Reading) -> tuple[Fraction, ...]:
    """All four, in the order of `MEASURES`."""
    return tuple(fraction(measure, claims, reading) for measure in MEASURES)


def axis_position(share: float) -> float:
    """Where a share lies on the pictures, 0 to 100: 0 at the left end, then logarithmic from 1e-6 to 1."""
    if share <= 0:
        return 0.0
    clipped = min(max(share, _AXIS_LOW), 1.0)
    position = _AXIS_ZERO + (100 - _AXIS_ZERO) * math.log(clipped / _AXIS_LOW) / math.log(1 / _AXIS_LOW)
    return min(100.0, position)


def axis_ticks() -> list[tuple[float, str]]:
    """Positions and labels of the axis."""
    shares = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    labels = ("0", "", "", "0.01 %", "", "1 %", "", "100 %")
    return [(axis_position(share), label) for share, label in zip(shares, labels, strict=True)]


def _from_claim(measure: Measure, source: Source, claim: Claim | None, others: int) -> Fraction:
    if claim is None:
        return _without(measure, source, f"no claim {source.name} was given", None, 0)
    if claim.unbounded:
        return _without(measure, source, "nothing bounds it", claim, others)
    if claim.value is None:
        return _without(measure, source, "not covered", claim, others)
    low, high = _ends(claim)
    if source.inverted:
        low, high = (None if high is None else 1 - high), (None if low is None else 1 - low)
    if high is None:
        return _without(measure, source, "the claim bounds the other direction only", claim, others)
    high = min(1.0, max(0.0, high))
    standing = Standing.WITHIN if high <= measure.bar else Standing.ABOVE
    return Fraction(
        measure, source, standing, None if low is None else max(0.0, low), high, claim, "", others
    )


def _ends(claim: Claim) -> tuple[float | None, float | None]:
    if claim.bound is Bound.UPPER:
        return None, claim.value
    if claim.bound is Bound.LOWER:
        return claim.value, None
    return (claim.interval.low, claim.interval.high) if claim.interval else (None, None)


def _why(claim: Claim, reading: Reading) -> str:
    """Why a claim without a value has none for this reader."""
    if claim.unbounded:
        return "nothing bounds it"
    barred = [trust.value for trust in claim.trusts if not reading.allows(trust)]
    if barred and claim.evidence is not Evidence.NOT_COVERED:
        return f"it rests on {', '.join(barred)}, which {reading.value}s do not accept"
    return f"{claim.name} says itself that it is not covered"


def _without(measure: Measure, source: Source, reason: str, claim: Claim | None, others: int) -> Fraction:
    return Fraction(measure, source, Standing.MISSING, None, None, claim, reason, others)
