"""What a day's answers can have carried in secret, and how much of the declared budget is left.

    spent = tokens x bits a token  +  bits of when answers left and which of them failed
    left  = declared bits a day - spent

Bits a token are declared: what audits of this server showed (`token.covert_capacity`), and the audit of the
day's own log has to confirm them. Under enforcement they are 0, since the tokens are the reference's. The
second term is that of docs/residual.md, over the day so far. What is not in it: bytes beside the tap, and
the doors that `ullage total` counts. Pure: no I/O and no clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Final, Literal

from ullage.enforce.accounting import Ledger, lateness_bits
from ullage.log.record import Record
from ullage.tap.clients.budgets import same_day
from ullage.tap.failures import Failure, RequestRefusedError
from ullage.tap.pacing.grid import Pace
from ullage.tap.pacing.ledger import pattern_bits, seen_bits
from ullage.tap.residual.channels import observed_in, timing_bits

STEPS: Final = 64
"""The metrics page tells what is left in so many steps of the budget."""
_FRESH: Final = 100_000_000  # nanoseconds for which a figure is good enough to admit requests by
Release = Literal["at-once", "slots", "enforced-slots"]


@dataclass(frozen=True)
class Counts:
    """What was answered. `releases` could each be early or late; `exceptions` is how often one was late or
    failed; `slots` and `late` are those of enforcement."""

    messages: int = 0
    tokens: int = 0
    releases: int = 0
    exceptions: int = 0
    slots: int = 0
    late: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, one.name) - getattr(other, one.name) for one in fields(self)))

    @classmethod
    def of(cls, records: Iterable[Record], pace: Pace | None) -> Counts:
        """Those of a log's records; `pace` is None for a tap without slots."""
        closed = [record for record in records if record.close is not None]
        if not closed:
            return cls()
        seen = observed_in(closed, pace)
        tokens = sum(len(record.close.output_ids) for record in closed if record.close is not None)
        kept = Ledger.of(record.close.detail for record in closed if record.close is not None)
        return cls(seen.messages, tokens, seen.opportunities, seen.exceptions, kept.slots, kept.late)


@dataclass(frozen=True)
class CovertTerms:
    """What is declared. `budget` in bits a day; `patience`: seconds that an answer may take at most."""

    budget: float
    bits_per_token: float
    release: Release
    patience: float = 600.0

    def bits(self, counts: Counts) -> float:
        """What these answers can have carried at most."""
        return counts.tokens * self.bits_per_token + self._timing(counts)

    def _timing(self, counts: Counts) -> float:
        if self.release == "enforced-slots":
            return lateness_bits(counts.slots, counts.late) if counts.slots else 0.0
        if counts.messages == 0:
            return 0.0
        if self.release == "slots":
            return seen_bits(counts.releases, counts.exceptions)
        # Concave in the releases of a message, so that the mean message bounds the sum.
        each = timing_bits(self.patience, max(1.0, counts.releases / counts.messages))
        return counts.messages * each + pattern_bits(counts.messages, counts.exceptions, 1)


class CovertBudget:
    """The budget of a tap that runs. `read` gives counts since it began, `before` those that the log has of
    the day of `time_ns`. A day is one of UTC; a clock that goes back gives nothing anew."""

    def __init__(self, terms: CovertTerms, read: Callable[[], Counts], before: Counts, time_ns: int) -> None:
        self.terms = terms
        self._read = read
        self._before = before
        self._base = Counts()
        self._seen = Counts()  # when it was last looked at
        self._today = time_ns
        self._known: tuple[int, float] | None = None  # when it was worked out, and what was left

    def left(self, time_ns: int) -> float:
        """Bits that today's answers may still carry; 0 when the budget is spent."""
        if time_ns > self._today and not same_day(time_ns, self._today):
            # Nobody looked at midnight: what came since the last look is the new day's, or it were no day's.
            self._base, self._before = self._seen, Counts()
            self._today = time_ns
        self._seen = self._read()
        spent = self.terms.bits(self._seen - self._base + self._before)
        return max(0.0, self.terms.budget - spent)

    def step(self, time_ns: int) -> int:
        """What is left in whole `STEPS` of the budget, rounded down."""
        return int(self.left(time_ns) * STEPS // self.terms.budget)

    def admit(self, time_ns: int) -> None:
        """Raises RequestRefusedError when nothing is left today. Answers in flight are finished."""
        if self._known is None or not 0 <= time_ns - self._known[0] < _FRESH:
            self._known = (time_ns, self.left(time_ns))
        if self._known[1] <= 0:
            raise RequestRefusedError(Failure.BUDGET_EXHAUSTED)
