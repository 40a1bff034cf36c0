"""A fleet under audit, day by day: who is noticed when, how many false alarms, what it costs.

Vectorised over racks; a day is one step and no token has an event. The random parts are drawn from
the distributions of `sampled_audit.py`, so the simulation adds what formulas lack: wipes, inspectors
with limited capacity, and queues.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ullage.errors import UsageError
from ullage.slowdown.sampled_audit import Audit, CostRow, cheapest_audit

_MOST_RACK_DAYS = 500_000_000
_NEVER = np.iinfo(np.int32).max
_WEEK = 7
_MONTH = 30


@dataclass(frozen=True)
class Plan:
    """The fleet, its cheats, and what is done about them."""

    racks: int = 30_000
    days: int = 30
    cheating_share: float = 0.01  # of the racks
    deviating_share: float = 0.01  # of a cheating rack's messages
    audit: Audit = field(default_factory=Audit)
    recompute_cost: float = 1.0  # compute to recompute a message over generating it
    wipes_a_day: float = 0.0
    wipe_cycle: float = 20.0  # seconds out of service
    wipe_false_alarm: float = 1e-6  # an honest wipe that misses its deadline
    wipe_detection: float = 0.0  # a cheat's wipe that is noticed: it kept something
    inspections_a_day: int = 100
    inspection_days: int = 2  # from visit to answer
    seed: int = 0

    def __post_init__(self) -> None:
        if self.racks < 1 or self.days < 1 or self.racks * self.days > _MOST_RACK_DAYS:
            raise UsageError(f"racks times days must lie between 1 and {_MOST_RACK_DAYS:,}.")
        shares = (self.cheating_share, self.deviating_share, self.wipe_false_alarm, self.wipe_detection)
        if not all(0 <= share <= 1 for share in shares):
            raise UsageError("shares and chances must lie between 0 and 1.")
        if self.inspections_a_day < 0 or self.inspection_days < 0 or self.seed < 0:
            raise UsageError("inspections, their days and the seed must not be negative.")
        if self.recompute_cost < 0 or self.wipes_a_day < 0 or self.wipe_cycle < 0:
            raise UsageError("costs, wipes and their length must not be negative.")
        if self.wipes_a_day * self.wipe_cycle >= 86_400:
            raise UsageError("the wipes take the whole day: make them shorter or fewer.")

    @property
    def cheats(self) -> int:
        """How many racks cheat."""
        return round(self.racks * self.cheating_share)

    @property
    def deviating_messages(self) -> int:
        """Messages a day of a cheating rack that deviate."""
        return round(self.deviating_share * self.audit.messages)


@dataclass(frozen=True)
class Outcome:
    """What happened. Days count from 1; arrays have one entry a cheating rack, `never` where not."""

    noticed: NDArray[np.int32]
    confirmed: NDArray[np.int32]
    false_alarms: int
    alarms: int
    inspections: int
    longest_queue: int
    waiting: int
    days: int

    def noticed_by(self, share: float) -> float:
        """The day by which this share of the cheating racks had raised an alarm; infinite if not."""
        return self._day(self.noticed, share)

    def confirmed_by(self, share: float) -> float:
        """The day by which that share of the cheating racks was confirmed; infinite if never."""
        return self._day(self.confirmed, share)

    def _day(self, days: NDArray[np.int32], share: float) -> float:
        if not days.size:
            return math.inf
        day = int(np.sort(days)[max(0, math.ceil(share * days.size) - 1)])
        return math.inf if day == _NEVER else float(day)

    @property
    def false_alarms_a_month(self) -> float:
        """Alarms of honest racks in thirty days, the whole fleet."""
        return self.false_alarms * _MONTH / self.days

    @property
    def noticed_share(self) -> float:
        """The share of cheating racks that raised an alarm."""
        return float(np.mean(self.noticed != _NEVER)) if self.noticed.size else 0.0


def simulate(plan: Plan, progress: Callable[[int, int], None] = lambda done, total: None) -> Outcome:
    """Run the plan once. Racks 0 .. cheats-1 cheat until an inspection confirms it. `progress` takes days."""
    random = np.random.default_rng(plan.seed)
    cheats, audit = plan.cheats, plan.audit
    noticed = np.full(cheats, _NEVER, np.int32)
    confirmed = np.full(cheats, _NEVER, np.int32)
    cheating = np.zeros(plan.racks, bool)
    cheating[:cheats] = True
    queued = np.zeros(plan.racks, bool)
    queue: list[NDArray[np.intp]] = []
    answers: dict[int, NDArray[np.intp]] = {}
    false_alarms = alarms = inspections = longest = 0
    for day in range(1, plan.days + 1):
        progress(day - 1, plan.days)
        if (answered := answers.pop(day, None)) is not None:
            guilty = answered[cheating[answered]]
            confirmed[guilty] = day
            cheating[guilty] = False
            queued[answered] = False
        raised = _alarms(random, plan, audit, cheating)
        alarms += int(raised.sum())
        false_alarms += int((raised & ~cheating).sum())
        first = np.flatnonzero(raised[:cheats] & cheating[:cheats] & (noticed == _NEVER))
        noticed[first] = day
        fresh = np.flatnonzero(raised & ~queued)
        queued[fresh] = True
        queue.append(random.permutation(fresh))
        waiting = np.concatenate(queue)
        visited, rest = waiting[: plan.inspections_a_day], waiting[plan.inspections_a_day :]
        queue = [rest]
        longest = max(longest, rest.size)
        inspections += visited.size
        answers[day + plan.inspection_days] = visited
        if plan.inspection_days == 0 and visited.size:
            guilty = visited[cheating[visited]]
            confirmed[guilty] = day
            cheating[guilty] = False
            queued[visited] = False
    return Outcome(
        noticed,
        confirmed,
        false_alarms,
        alarms,
        inspections,
        longest,
        queue[0].size if queue else 0,
        plan.days,
    )


def _alarms(
    random: np.random.Generator, plan: Plan, audit: Audit, cheating: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which racks raise an alarm today, by audit or by wipe."""
    active = np.flatnonzero(cheating)
    bad = np.zeros(cheating.size, np.int64)
    deviating = plan.deviating_messages
    if active.size and deviating:
        bad[active] = (
            random.hypergeometric(deviating, audit.messages - deviating, audit.drawn, size=active.size)
            if audit.drawn
            else 0
        )
    flags = random.binomial(audit.drawn - bad, audit.honest_flags)
    flags[active] += random.binomial(bad[active], audit.power)
    raised = flags >= audit.alarm_at
    if plan.wipes_a_day:
        chance = np.full(cheating.size, 1 - (1 - plan.wipe_false_alarm) ** plan.wipes_a_day)
        chance[active] = 1 - (1 - max(plan.wipe_detection, plan.wipe_false_alarm)) ** plan.wipes_a_day
        raised |= random.random(cheating.size) < chance
    return np.asarray(raised, dtype=np.bool_)


def served_share(plan: Plan) -> float:
    """Capacity that wipes leave for serving."""
    return 1.0 - plan.wipes_a_day * plan.wipe_cycle / 86_400


DEVIATING_SHARES = (1.0, 0.1, 0.01, 0.001, 1e-4)


def cost_table(
    plan: Plan,
    confidence: float = 0.99,
    false_alarms_a_month: float = 1.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[CostRow, ...]:
    """The least audit that notices a cheating rack within a week, for rarer and rarer deviations.

    `false_alarms_a_month` is the fleet's limit. Rows without an audit that does both are None.
    """
    limit = false_alarms_a_month / (plan.racks * _MONTH)
    rows = []
    for number, share in enumerate(DEVIATING_SHARES):
        progress(number, len(DEVIATING_SHARES))
        found = cheapest_audit(plan.audit, share, _WEEK, confidence, limit)
        if found is None:
            rows.append(CostRow(share, None, 0, math.inf, math.inf))
            continue
        rows.append(
            CostRow(
                share,
                found.drawn,
                found.alarm_at,
                found.hardware_share(plan.recompute_cost),
                found.false_alarm() * plan.racks * _MONTH,
            )
        )
    return tuple(rows)
