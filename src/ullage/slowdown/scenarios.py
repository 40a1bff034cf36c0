"""The built-in scenarios: what the source proposes, alone and together.

All but the first two have the cables pulled and the tap at 100 KB/s. Where a scenario verifies
anything, open cheating is taken to end within a week and 1 % of the fleet to go astray in a year;
both are judgements, listed with the constraints.
"""

from __future__ import annotations

from dataclasses import replace

from ullage.slowdown.constraints import COPPER, TAP, Constraints, Note, Scenario

HOUR = 3_600.0
MONTH = 30 * 24 * HOUR
_WIPE_CYCLE = 20.0  # seconds out of service, the order of what a rack's memory bandwidth allows
_ENFORCED_RESIDUAL = 1.0  # bytes/s a rack in lengths and times

UNVERIFIED = Constraints()
CABLES_PULLED = replace(UNVERIFIED, egress=COPPER, ingress=COPPER, response_days=7.0, diversion=0.01)
TAPPED = replace(CABLES_PULLED, egress=TAP, ingress=TAP)


def _wiped(minutes: float) -> Constraints:
    return replace(TAPPED, wipe_period=60 * minutes, wipe_cycle=_WIPE_CYCLE)


def _worked(share: float, operations: float | None = None) -> Constraints:
    counted = share if operations is None else operations
    return replace(TAPPED, accounted_time=share, accounted_operations=counted)


ALL_BARS = replace(
    TAPPED,
    covert_fraction=1e-4,
    wipe_period=300.0,
    wipe_cycle=_WIPE_CYCLE,
    accounted_time=0.95,
    accounted_operations=0.95,
    resident_memory=0.95,
)
CLOSED = replace(ALL_BARS, update_interval=3 * MONTH, accomplice_share=0.01)

_TABLE: tuple[tuple[str, Constraints], ...] = (
    ("nothing verified", UNVERIFIED),
    ("cables pulled", CABLES_PULLED),
    ("tap at 100 KB/s", TAPPED),
    ("recomputation, 1 % unexplained", replace(TAPPED, covert_fraction=0.01)),
    ("recomputation, 0.5 % unexplained", replace(TAPPED, covert_fraction=0.005)),
    ("recomputation, 0.01 % unexplained", replace(TAPPED, covert_fraction=1e-4)),
    ("enforced output", replace(TAPPED, covert_fraction=0.0, residual=_ENFORCED_RESIDUAL, enforced=True)),
    ("wipes every minute", _wiped(1)),
    ("wipes every 5 minutes", _wiped(5)),
    ("wipes every 60 minutes", _wiped(60)),
    ("work 80 %", _worked(0.80)),
    ("work 95 %", _worked(0.95)),
    ("work 99 %", _worked(0.99)),
    ("work 95 % of time, 30 % of operations", _worked(0.95, 0.30)),
    ("memory 80 %", replace(TAPPED, resident_memory=0.80)),
    ("memory 95 %", replace(TAPPED, resident_memory=0.95)),
    ("memory 99 %", replace(TAPPED, resident_memory=0.99)),
    ("all bars together", ALL_BARS),
    ("all bars, quarterly updates, customers at 1 %", CLOSED),
)  # fmt: skip

SINGLE_BARS = ("work 95 %", "memory 95 %", "wipes every minute", "wipes every 5 minutes",
               "recomputation, 0.01 % unexplained")  # fmt: skip
"""The bars of the source's central claim, each with cables pulled and the tap at 100 KB/s."""


def _notes(constraints: Constraints) -> dict[str, Note]:
    given = {
        name: Note("assumed", "clymer")
        for name in vars(constraints)
        if getattr(constraints, name) != getattr(UNVERIFIED, name)
    }
    for name in ("response_days", "diversion", "wipe_cycle", "residual"):
        if name in given:
            given[name] = Note("assumed", "judgement")
    return given


def _warnings(constraints: Constraints) -> tuple[str, ...]:
    loud = []
    if constraints.update_interval == 0:
        loud.append("updates of the declared model: not covered, taken as free at any time")
    if constraints.accomplice_share == 1:
        loud.append("what one customer may order: not covered, taken as everything")
    return tuple(loud)


BUILTIN: tuple[Scenario, ...] = tuple(
    Scenario(name, constraints, _notes(constraints), _warnings(constraints)) for name, constraints in _TABLE
)


def named(name: str) -> Scenario:
    """The built-in scenario of that name. Raises StopIteration if there is none."""
    return next(scenario for scenario in BUILTIN if scenario.name == name)
