"""Is what was released the reference's own, and is it the same whatever server stood behind the tap?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ullage.audit.bounds.statistics import upper_bound
from ullage.enforce.accounting import Tally
from ullage.log.record import HeaderPart, Record
from ullage.redteam.enforced.client import Ask
from ullage.redteam.enforced.stage import Run

_BATCH = 8
_BEGINNINGS = (
    "The history of the sea is",
    "def read(path):\n    ",
    "On the next morning she",
    "Water boils when",
    "import os\n\n",
    '"Where are you going?" he',
    "In the year 1891 the town",
    "The second reason is that",
)


def asks(count: int, tokens: int, *, stream: bool = False) -> list[Ask]:
    """Requests with prompts of their own, at temperature 1 and without filters, which hides most."""
    return [
        Ask(f"{_BEGINNINGS[number % len(_BEGINNINGS)]} {number}:", tokens, stream) for number in range(count)
    ]


@dataclass(frozen=True)
class Exactness:
    """Released tokens held against a second derivation of the same transcripts."""

    tokens: int
    records: int
    wrong: int
    """Tokens that are not the reference's own at their place; a missing or a superfluous one counts."""
    wrong_endings: int

    def upper(self, confidence: float = 0.95) -> float:
        """One-sided Clopper–Pearson limit of the share of tokens that are not the reference's."""
        return upper_bound(self.wrong, self.tokens, confidence)


def derive_again(
    records: Sequence[Record],
    header: HeaderPart,
    model: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Exactness:
    """Compute the transcripts of a log's records from their causes, in this process.

    Raises UsageError where this machine cannot have the numerics that the log's header names.
    The log's tokens serve as drafts, which changes the time it takes and nothing else.
    """
    from ullage.audit.exact.derive import derive, find_derivation
    from ullage.enforce.reference import ChunkedReference

    derivation = find_derivation(header)
    reference = ChunkedReference.load(model, derivation.dtype, derivation.chunk)
    reference.find_batch(_BATCH)
    tokens = wrong = endings = 0
    for done, record in enumerate(records):
        derived = derive(reference, header.profile, record)
        own, given = derived.ids, record.output_ids
        same = sum(a == b for a, b in zip(own, given, strict=False))
        wrong += max(len(own), len(given)) - same
        endings += record.close is None or record.close.finish_reason != derived.finish_reason
        tokens += len(given)
        progress(done + 1, len(records))
    return Exactness(tokens, len(records), wrong, endings)


@dataclass(frozen=True)
class Drafting:
    """What became of a server's drafts, over a run."""

    drafted: int
    replaced: int
    alone: int
    given_up: int
    """Answers whose server was given up."""

    @classmethod
    def of(cls, run: Run) -> Drafting:
        found = [Tally.parse(record.close.detail) for record in run.records if record.close]
        tallies = [tally for tally in found if tally is not None]
        return cls(
            sum(tally.drafted for tally in tallies),
            sum(tally.replaced for tally in tallies),
            sum(tally.alone for tally in tallies),
            sum(bool(tally.failure) for tally in tallies),
        )


@dataclass(frozen=True)
class Differences:
    """Between two runs with the same requests and seeds, in records."""

    seeds: int
    tokens: int
    endings: int
    bodies: int
    statuses: int

    @property
    def any(self) -> bool:
        return bool(self.seeds or self.tokens or self.endings or self.bodies or self.statuses)


def compare_runs(one: Run, other: Run) -> Differences:
    """What differs, record by record. Bodies without the tap's clock (`Received.timeless`)."""
    records = list(zip(one.records, other.records, strict=True))
    answers = list(zip(one.received, other.received, strict=True))
    return Differences(
        seeds=sum((a.open.seed, a.open.prompt_ids) != (b.open.seed, b.open.prompt_ids) for a, b in records),
        tokens=sum(a.output_ids != b.output_ids for a, b in records),
        endings=sum(_ending(a) != _ending(b) for a, b in records),
        bodies=sum(a.timeless != b.timeless for a, b in answers),
        statuses=sum(a.status != b.status for a, b in answers),
    )


def _ending(record: Record) -> tuple[str, str | None] | None:
    return (record.close.outcome, record.close.finish_reason) if record.close else None
