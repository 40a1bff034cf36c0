"""What recorded inference is worth: tokens that needed computing, as if by the best caching. Pure arithmetic.

A token counts if no earlier record of the log computed it: the sequence prompt + output is looked up in
the set of all prefixes seen, so a shared prefix counts once, and a repeated request that gives the same
answer not at all. Decoding earns the least that it can have cost whatever schedule the server chose
(`least`), prefill its best rate.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from ullage.work.least import Decoding, Floats, decoding_seconds, most_open
from ullage.work.window import Inference

_KEY_BYTES = 16


@dataclass(frozen=True)
class Served:
    """One record as the log has it. Times are nanoseconds since 1970, on the tap's clock."""

    counter: int
    start: int
    end: int
    prompt: tuple[int, ...]
    output: tuple[int, ...]
    verified: bool
    """False: the audit found it wrong, or could not recompute it. It then counts nothing."""


@dataclass(frozen=True)
class Costs:
    """Calibrated core-seconds a token, on the twin.

    And operations a token (2 x parameters for a dense model).
    """

    prefill: float
    decode: tuple[tuple[int, float], ...]
    """(batch, seconds a token), batches ascending."""
    operations: float
    usual: tuple[float, float] = (1.0, 1.0)
    """How many times what the log shows inference usually takes (`usual`), in steps of one row and in full
    ones; between the two as the rows are. For the alarm only."""

    def __post_init__(self) -> None:
        if not self.decode or any(a[0] >= b[0] for a, b in pairwise(self.decode)):
            raise ValueError("decode times are given for ascending batches, at least one")

    def decode_seconds(self, batch: int) -> float:
        """The smallest time at this batch or a smaller one that was measured, or the next larger one.

        Never more than the truth at `batch`: the next larger batch measured is taken, because larger is
        cheaper. Beyond the largest one a token's share of a step shrinks as the batch grows, and a step of
        more rows is only known to take no less time than one of fewer.
        """
        place = bisect.bisect_left([size for size, _ in self.decode], batch)
        least = min(seconds for _, seconds in self.decode[: min(place, len(self.decode) - 1) + 1])
        size, seconds = self.decode[-1]
        return least if batch <= size else min(least, seconds * size / batch)

    def step_seconds(self, most: int) -> Floats:
        """(most,) the smallest core-seconds of a step of 1, 2, … rows.

        That of `decode_seconds`, or of the largest batch measured that is no larger: more rows take no less
        time. Where measurements say otherwise, the smallest of the larger ones counts.
        """
        sizes = np.arange(1, most + 1)
        shares = sizes * np.array([self.decode_seconds(int(size)) for size in sizes])
        timed = np.array([size * self.decode_seconds(size) for size, _ in self.decode])
        floors = np.append(0.0, np.minimum.accumulate(timed[::-1])[::-1])
        below = np.searchsorted([size for size, _ in self.decode], sizes, side="right")
        steps: Floats = np.maximum(shares, floors[below])
        return steps

    def of_the_largest_batch(self, records: int = 1) -> Costs:
        """As if all had run in one batch, the largest measured or `records` together: for a log that cannot
        be read whole."""
        largest = max(self.decode[-1][0], records)
        return replace(self, decode=((largest, self.decode_seconds(largest)),))


@dataclass(frozen=True)
class Credit:
    """What one record earns, spread evenly over the time it was open."""

    counter: int
    start: int
    end: int
    new_prompt: int
    new_output: int
    seconds: float
    """The least that it can have cost."""
    alone: float
    """What it costs a server that takes every open record along in each step, at the smallest times; so much
    of it as counts as time of steps with one row …"""
    full: float
    """… and as that of full steps."""
    usual: tuple[float, float]
    operations: float

    @property
    def shown(self) -> float:
        """What it usually costs such a server."""
        return self.usual[0] * self.alone + self.usual[1] * self.full


class LoggedOpen(Protocol):
    """What is needed of a record's first part."""

    @property
    def counter(self) -> int: ...
    @property
    def time_received(self) -> int: ...
    @property
    def prompt_ids(self) -> tuple[int, ...]: ...


class LoggedClose(Protocol):
    """What is needed of a record's last part."""

    @property
    def time_closed(self) -> int: ...
    @property
    def output_ids(self) -> tuple[int, ...]: ...


class Logged(Protocol):
    """A record of the log, as far as it is needed here."""

    @property
    def open(self) -> LoggedOpen: ...
    @property
    def close(self) -> LoggedClose | None: ...


WRONG_SHARE = 0.25
"""A record with more mismatches than this was not computed by the declared model: it earns nothing."""


def is_the_references(mismatches: int | None, tokens: int) -> bool:
    """Whether an audit that recomputed this record (None: it did not) found the reference's own answer.

    An audit may pass although single records are invented. Honest noise changes about one token in a hundred,
    text that no model computed nearly all of them.
    """
    return mismatches is not None and mismatches <= WRONG_SHARE * tokens


def served_records(
    records: Iterable[Logged], examined: Mapping[int, bool], *, everything: bool
) -> list[Served]:
    """All records: one without a close is open to the last time of the log, and earns nothing.

    `examined` says of each record that a passed audit looked at whether it is the reference's own.

    Where an audit looked at a sample, its verdict is about the others as well (`everything` False): they
    count unless none of the sample does.
    """
    others = not everything and any(examined.values())
    known = list(records)
    last = max((one.close.time_closed if one.close else one.open.time_received for one in known), default=0)
    return [
        Served(
            record.open.counter,
            record.open.time_received,
            record.close.time_closed if record.close else last,
            record.open.prompt_ids,
            record.close.output_ids if record.close else (),
            verified=record.close is not None and examined.get(record.open.counter, others),
        )
        for record in known
    ]


def credit(served: Iterable[Served], costs: Costs, slots: int) -> list[Credit]:
    """The credit of every record, in order of counters, on a machine of so many slots.

    A record without output earns nothing, whatever its prompt: nothing of it was there to be recomputed.
    """
    records = sorted(served, key=lambda record: record.counter)
    new = _new_tokens(records)
    decoding = _decoding(records, [output for _, output in new], costs, slots)
    # A prompt is read beside the steps that its record was open in.
    part = np.divide(decoding.full, decoding.shown, out=np.zeros(len(records)), where=decoding.shown > 0)
    prompts = np.array([prompt for prompt, _ in new], np.float64) * costs.prefill
    shown, least = prompts + decoding.shown, prompts + decoding.least
    return [
        Credit(
            record.counter,
            record.start,
            record.end,
            prompt,
            output,
            seconds=float(least[place]),
            alone=float(shown[place] * (1 - part[place])),
            full=float(shown[place] * part[place]),
            usual=costs.usual,
            operations=(prompt + output) * costs.operations,
        )
        for place, (record, (prompt, output)) in enumerate(zip(records, new, strict=True))
    ]


def _new_tokens(records: Sequence[Served]) -> list[tuple[int, int]]:
    """Of each record, the tokens of prompt and output that no earlier one computed."""
    seen: set[bytes] = set()
    found = []
    for record in records:
        if not record.verified or not record.output:
            found.append((0, 0))
            continue
        # The last output token is drawn but never fed back: it needs no pass of its own.
        fed = record.prompt + record.output[:-1]
        known = _add(seen, fed)
        found.append((max(0, len(record.prompt) - known), len(fed) - max(known, len(record.prompt))))
    return found


def _decoding(records: Sequence[Served], tokens: Sequence[int], costs: Costs, slots: int) -> Decoding:
    """Core-seconds of each record's decoding. All records count as open, whatever they earn."""
    if not records:
        return Decoding(np.zeros(0), np.zeros(0), np.zeros(0))
    begin = min(record.start for record in records)
    # Times of a log fit into 64 bits; what does not is no time.
    start, end = (
        np.array([min(getattr(r, name) - begin, 1 << 62) for r in records], np.int64)
        for name in ("start", "end")
    )
    steps = costs.step_seconds(most_open(start, end))
    return decoding_seconds(start, end, np.array(tokens, np.int64), steps, slots, costs.decode[-1][0])


def within(earned: Iterable[Credit], start: int, end: int) -> Inference:
    """What of the credits falls into [start, end), nanoseconds since 1970. Each is spread over its life."""
    smallest = shown = inside = operations = 0.0
    for item in earned:
        share = _share_within(item, start, end)
        smallest += item.seconds * share
        shown += item.shown * share
        inside += item.seconds if share == 1.0 else 0.0
        operations += item.operations * share
    return Inference(smallest, shown, inside, operations)


def steps_within(earned: Iterable[Credit], start: int, end: int) -> tuple[float, float]:
    """What the log shows in [start, end) at the smallest times, `alone` and `full`."""
    alone = full = 0.0
    for item in earned:
        share = _share_within(item, start, end)
        alone += item.alone * share
        full += item.full * share
    return alone, full


def _share_within(item: Credit, start: int, end: int) -> float:
    """Of the time that a record was open, the part in [start, end)."""
    length = max(1, item.end - item.start)
    return max(0, min(end, item.start + length) - max(start, item.start)) / length


def outside(earned: Sequence[Credit], spans: Sequence[tuple[int, int]]) -> float:
    """Credited seconds that fall into none of these spans, which do not overlap.

    Where the tap's clock is wrong, they are many.
    """
    inside = sum(within(earned, start, end).smallest for start, end in spans)
    return max(0.0, sum(one.seconds for one in earned) - inside)


def _add(seen: set[bytes], tokens: Sequence[int]) -> int:
    """Add every prefix of `tokens`; how long the longest known one was."""
    known, key, new = 0, b"", False
    for place, token in enumerate(tokens):
        key = hashlib.blake2b(key + token.to_bytes(8, "big"), digest_size=_KEY_BYTES).digest()
        if not new and key in seen:
            known = place + 1
        else:
            new = True
            seen.add(key)
    return known
