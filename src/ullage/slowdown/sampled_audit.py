"""The mathematics of auditing a sample: how likely a day's draw raises an alarm, and what a bar costs.

Of a rack's N messages a day K deviate; the audit draws n without replacement. The number of deviating
ones drawn is hypergeometric, P(k) = C(K, k) C(N-K, n-k) / C(N, n); each is flagged with probability
`power`, each honest one with probability `honest_flags`; r flags in a day raise the alarm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ullage.errors import UsageError
from ullage.slowdown.ranges import Array

_MOST_MESSAGES = 100_000_000
_NEGLIGIBLE = 1e-18
_HIGHEST_ALARM = 64


def log_choose(total: int, chosen: int) -> float:
    """ln C(total, chosen); minus infinity where there is no way to choose."""
    if not 0 <= chosen <= total:
        return -math.inf
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


def _binomial_below(trials: int, probability: float, limit: int) -> Array:
    """P(X = j) for j < limit, X binomial; 0 for j > trials."""
    if probability in (0.0, 1.0):
        return np.array([float(j == (trials if probability else 0)) for j in range(limit)])
    return np.array(
        [
            math.exp(
                log_choose(trials, j) + j * math.log(probability) + (trials - j) * math.log1p(-probability)
            )
            for j in range(limit)
        ]
    )


@dataclass(frozen=True)
class Audit:
    """What is drawn of a rack's messages in a day, and when that raises an alarm."""

    messages: int = 533_000  # a rack's day: 6,173 tokens/s, 1,000 a message
    drawn: int = 50
    power: float = 1.0
    honest_flags: float = 1e-4
    alarm_at: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.messages <= _MOST_MESSAGES:
            raise UsageError(f"a rack has 1 to {_MOST_MESSAGES:,} messages a day, not {self.messages:,}.")
        if not 0 <= self.drawn <= self.messages:
            raise UsageError("the audit cannot draw more messages than a rack has in a day.")
        if not (0 <= self.power <= 1 and 0 <= self.honest_flags < 1):
            raise UsageError("power and the share of honest flags are probabilities.")
        if not 1 <= self.alarm_at <= 1_000:
            raise UsageError("an alarm needs 1 to 1,000 flags.")

    def false_alarm(self) -> float:
        """P(an honest rack raises an alarm in a day)."""
        below = _binomial_below(self.drawn, self.honest_flags, min(self.alarm_at, self.drawn + 1))
        return max(0.0, 1.0 - float(below.sum()))

    def alarm(self, deviating: int) -> float:
        """P(a rack with `deviating` such messages raises an alarm in a day).

        1 - sum over k drawn deviating ones of P(k) * sum over i < r flagged ones of
        P(i of k flagged) P(fewer than r - i honest flags among n - k). The sum over k ends where
        flagging fewer than r of k has a chance below 1e-18.
        """
        limit, drawn, quiet = self.alarm_at, self.drawn, 0.0
        for bad in range(min(deviating, drawn) + 1):
            flagged = _binomial_below(bad, self.power, min(limit, bad + 1))
            if float(flagged.sum()) < _NEGLIGIBLE:
                break
            ways = log_choose(deviating, bad) + log_choose(self.messages - deviating, drawn - bad)
            weight = math.exp(ways - log_choose(self.messages, drawn))
            below = np.cumsum(_binomial_below(drawn - bad, self.honest_flags, limit))
            quiet += weight * float(sum(chance * below[limit - 1 - i] for i, chance in enumerate(flagged)))
        return min(1.0, max(0.0, 1.0 - quiet))

    def hardware_share(self, recompute_cost: float) -> float:
        """Verifier's compute over the fleet's: audited share times recomputing over generating."""
        return self.drawn / self.messages * recompute_cost


@dataclass(frozen=True)
class CostRow:
    """What it takes to catch a rack that deviates in `deviating_share` of its messages."""

    deviating_share: float
    drawn: int | None
    alarm_at: int
    hardware_share: float
    false_alarms_a_month: float


def cheapest_audit(
    base: Audit, deviating_share: float, days: int, confidence: float, false_alarm_limit: float
) -> Audit | None:
    """The smallest daily draw that alarms within `days` with `confidence` and keeps an honest rack's
    daily false alarms below the limit; None if even drawing everything does not.

    For a threshold r the least n that detects is found by bisection (the alarm's chance rises with n).
    Both that n and the false alarms at it move one way with r, n up and false alarms at a fixed n down:
    so the first r whose false alarms pass is the answer, and an r that fails already at the n of a
    lower one is passed over.
    """
    deviating = max(1, round(deviating_share * base.messages))
    daily = 1 - (1 - confidence) ** (1 / days)
    least = 1
    for alarm_at in range(1, _HIGHEST_ALARM + 1):
        if replace(base, drawn=least, alarm_at=alarm_at).false_alarm() > false_alarm_limit:
            continue
        found = _least_draw(base, deviating, daily, alarm_at)
        if found is None:
            return None
        if found.false_alarm() <= false_alarm_limit:
            return found
        least = found.drawn
    return None


def _least_draw(base: Audit, deviating: int, daily: float, alarm_at: int) -> Audit | None:
    def audit(drawn: int) -> Audit:
        return replace(base, drawn=drawn, alarm_at=alarm_at)

    def enough(drawn: int) -> bool:
        return audit(drawn).alarm(deviating) >= daily

    if not enough(base.messages):
        return None
    low, high = 0, base.messages
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return audit(high)
