"""Claims as a page lists them: by area, each with what both readers see and with what broke its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ullage.claims import TRUTH, Bound, Claim, Evidence, Reading
from ullage.report.adversaries import Played, broken_by
from ullage.report.coverage import EXPECTED
from ullage.report.words import confidence, moment, number, percent

_AREAS = {
    "token": "Tokens",
    "prompt": "Prompts",
    "log": "The log",
    "calibration": "Calibration",
    "wire": "The wire",
    "channel": "Length, timing, order, errors",
    "enforce": "Enforcement",
    "memory": "Memory",
    "compute": "Compute",
    "work": "Work",
    "total": "In all",
    "training": "Covert training",
    "exfiltration": "Theft of weights",
    "fleet": "A fleet",
}
_TESTED_AS = {"work": "compute", "enforce": "token", "calibration": "token", "wire": "channel"}
_MAIN = frozenset(
    (
        *(name for name, _, _ in EXPECTED), "token.mismatch_rate", "token.covert_capacity",
        "token.false_alarm_rate", "compute.accounted_flop", "training.slowdown", "exfiltration.time",
    )
)  # fmt: skip
"""Names that a page lists by themselves; figures beside them are folded where they are many."""
_MANY = 6
_SIGNS = {Bound.UPPER: "≤ ", Bound.LOWER: "≥ ", Bound.ESTIMATE: ""}


@dataclass(frozen=True)
class ClaimView:
    """One claim, with its figure for both readers; `barred` says on what an inspector cannot rest."""

    claim: Claim
    figure: str
    barred: tuple[str, ...]
    window: str
    broken: str
    origin: str = ""
    """The input that it is from, where several have one of that name."""

    @property
    def is_shown(self) -> bool:
        return self.claim.evidence is not Evidence.NOT_COVERED


@dataclass(frozen=True)
class Group:
    """The claims of one area."""

    label: str
    claims: tuple[ClaimView, ...]

    @property
    def further(self) -> tuple[ClaimView, ...]:
        """Those that are folded away: figures beside the main ones, where there are many."""
        beside = tuple(one for one in self.claims if one.claim.name not in _MAIN)
        return beside if _MANY < len(beside) < len(self.claims) else ()

    @property
    def first(self) -> tuple[ClaimView, ...]:
        """The others."""
        folded = {id(one) for one in self.further}
        return tuple(one for one in self.claims if id(one) not in folded)

    @property
    def for_inspector(self) -> int:
        return sum(1 for one in self.claims if one.is_shown and not one.barred)


def figure(claim: Claim) -> str:
    """A claim's value with its direction, interval and confidence."""
    if claim.unbounded:
        return "unbounded"
    if claim.value is None:
        return "not covered"
    if claim.unit == TRUTH:
        return f"{'yes' if claim.value >= 1 else 'no'} {confidence(claim.confidence)}".rstrip()
    everything = claim.bound is Bound.LOWER and claim.unit.startswith("share") and claim.value >= 1
    text = ("" if everything else _SIGNS[claim.bound]) + _value(claim.value, claim.unit)
    if claim.interval:
        low = "–∞" if claim.interval.low is None else _value(claim.interval.low, claim.unit)
        high = "∞" if claim.interval.high is None else _value(claim.interval.high, claim.unit)
        return f"{text} [{low}, {high}] {confidence(claim.interval.confidence)}".rstrip()
    return f"{text} {confidence(claim.confidence)}".rstrip()


def groups(
    claims: Iterable[Claim], table: Sequence[Played], origin: Callable[[Claim], str] = lambda claim: ""
) -> tuple[Group, ...]:
    """Claims by area, areas in a fixed order. `origin` names the input that a claim is from."""
    claims = tuple(claims)
    times = Counter(claim.name for claim in claims)
    by_area: dict[str, list[ClaimView]] = {}
    for claim in claims:
        area = claim.name.split(".", 1)[0]
        view = _view(claim, area, table)
        if times[claim.name] > 1:
            view = replace(view, origin=origin(claim))
        by_area.setdefault(area, []).append(view)
    order = [area for area in _AREAS if area in by_area]
    order += sorted(set(by_area) - set(order))
    return tuple(Group(_AREAS.get(area, area.capitalize()), tuple(by_area[area])) for area in order)


def _view(claim: Claim, area: str, table: Sequence[Played]) -> ClaimView:
    barred = tuple(trust.value for trust in claim.trusts if not Reading.INSPECTOR.allows(trust))
    window = f"{moment(int(claim.window.start))} – {moment(int(claim.window.end))}" if claim.window else ""
    return ClaimView(claim, figure(claim), barred, window, _broken(_TESTED_AS.get(area, area), table))


def _broken(area: str, table: Sequence[Played]) -> str:
    names, many = broken_by(area, table)
    if names:
        return f"{', '.join(names)} (of {many} that played)"
    return f"none of the {many} that played" if many else "no red team's results on this were given"


def _value(value: float, unit: str) -> str:
    if unit.startswith("share") or unit == "probability":
        return percent(value)
    if unit == "s":
        return f"{value:.3g} s"
    return f"{number(value)} {unit}" if unit and unit != "factor" else number(value)
