"""The allowance of exceptions: how often the server may make an answer late or fail, and what that can say.

An answer that leaves at its own slot says nothing by its time. Every exception (late by one of a few steps,
or failed) is a symbol that the server may choose freely. Of N opportunities at most E = burst + share * N +
(seconds / drip) may be exceptions; when the allowance is used up the tap releases nothing. So what a receiver
sees is one of at most

    sum over k <= E of binomial(N, k) * kinds^k

patterns, and its logarithm bounds what late and failed answers carry, whatever the server does
(`pattern_bits`; the proof is in docs/residual.md). What the tap itself is late with has no allowance: a
client with long requests could use it up for all. It is counted afterwards, with the others (`seen_bits`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ullage.tap.pacing.grid import LATE_STEPS

KINDS: Final = LATE_STEPS + 1  # late by one of the steps, or failed
FAILED: Final = "failed"


def late_kind(step: int) -> str:
    """The name of "late by step `step`"."""
    return f"late-{(1 << step) - 1}"


def pattern_bits(opportunities: int, exceptions: int, kinds: int = KINDS) -> float:
    """log2 of the number of patterns with at most `exceptions` exceptions of `kinds` kinds.

    >>> pattern_bits(10, 0)
    0.0
    """
    most = min(exceptions, opportunities)
    if opportunities <= 0 or most <= 0:
        return 0.0
    terms = [_log2_binomial(opportunities, count) + count * math.log2(kinds) for count in range(most + 1)]
    top = max(terms)
    # Adding 2^-1000 and less changes nothing, but it must not overflow.
    return top + math.log2(sum(2.0 ** (term - top) for term in terms))


def bits_per_opportunity(share: float, kinds: int = KINDS) -> float:
    """The limit of `pattern_bits(N, share * N) / N` for large N: h(share) + share * log2(kinds).

    For shares up to kinds / (kinds + 1), beyond which any pattern is allowed and it is log2(kinds + 1).
    """
    if share <= 0:
        return 0.0
    if share >= kinds / (kinds + 1):
        return math.log2(kinds + 1)
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    return entropy + share * math.log2(kinds)


def seen_bits(releases: int, exceptions: int) -> float:
    """Bits of what was seen of so many releases, once it is known that so many exceptions were among them.

    A release may have several: the tap was late with what the server was late with, or by more than a step
    goes. Written down, each release has a letter and each exception is followed by one more, which makes a
    word of T + E letters of which E are exceptions; E itself costs 2 floor(log2(E + 1)) + 1 bits (Elias 1975,
    the gamma code).
    """
    number = 2 * ((exceptions + 1).bit_length() - 1) + 1
    return pattern_bits(releases + exceptions, exceptions) + number


def _log2_binomial(n: int, k: int) -> float:
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


@dataclass(frozen=True)
class Allowance:
    """Exceptions allowed: `burst` at once, `share` more an opportunity, one more every `drip` seconds.

    A stall makes everything in flight late at once, so `burst` should be the requests in flight.
    """

    share: float = 0.02
    burst: float = 256.0
    drip: float = 1800.0

    def most(self, opportunities: int, seconds: float = 0.0) -> int:
        """The most exceptions among so many opportunities in so much time."""
        dripped = seconds / self.drip if self.drip > 0 else 0.0
        return math.floor(self.burst + self.share * opportunities + dripped)

    def left_after(self, spent: Iterable[tuple[int, float, int]], now: int) -> float:
        """What is left at `now` (ns) after entries of (ns, opportunities, exceptions) in any order."""
        left, before = self.burst, None
        for time, opportunities, exceptions in sorted(spent):
            dripped = self._dripped(before, time)
            left = max(0.0, min(self.burst, left + dripped + self.share * opportunities) - exceptions)
            before = time
        return min(self.burst, left + self._dripped(before, now))

    def _dripped(self, before: int | None, now: int) -> float:
        if before is None or self.drip <= 0:
            return 0.0
        return max(0, now - before) / 1e9 / self.drip


class Ledger:
    """Counts opportunities and exceptions, and says when there may be no more of them.

    `clock` gives seconds that never go back; `exhausted` is called once when an exception finds no allowance.
    """

    def __init__(
        self,
        allowance: Allowance,
        clock: Callable[[], float],
        exhausted: Callable[[], None],
        left: float | None = None,
    ) -> None:
        """`left`: of the allowance, where a log tells of exceptions before; None for all of it."""
        self.opportunities = 0
        self.exceptions: Counter[str] = Counter()
        self.own = 0  # exceptions that are not the server's, beyond any allowance
        self._allowance = allowance
        self._clock = clock
        self._exhausted = exhausted
        self._left = allowance.burst if left is None else left
        self._updated = clock()

    @property
    def open(self) -> bool:
        """Whether there is allowance for one more exception."""
        self._drip()
        return self._left >= 1.0

    def opportunity(self) -> None:
        """Something could have been late or failed."""
        self.opportunities += 1
        self._left = min(self._left + self._allowance.share, self._allowance.burst)

    def exception(self, kind: str) -> bool:
        """Something was; False when the allowance does not cover it, so that it must not be seen."""
        self.exceptions[kind] += 1
        if not self.open:
            self._exhausted()
            return False
        self._left -= 1.0
        return True

    def _drip(self) -> None:
        now = self._clock()
        if self._allowance.drip > 0:
            self._left += (now - self._updated) / self._allowance.drip
        # Not saved up beyond the burst, or a year's allowance would be spent on one day.
        self._left = min(self._left, self._allowance.burst)
        self._updated = now
