"""The least that decoding can have cost, whatever schedule the server chose. Pure arithmetic on arrays.

A server decodes in steps. A step takes one token further in each row of its batch, all of which are records
that are open throughout it, and costs at least `steps[b - 1]` core-seconds for b rows. Give the tokens of
each record a price. In a stretch of time between two openings or closings the open records are known, so it
is known what a core-second can earn there at most: the dearest b of them together over the cost of a step of
b. Where that is no more than one, nothing was earned that was not spent; where it is more, the excess is at
most that of every core-second of the stretch. So for *any* prices

    cost >= sum of tokens x price - sum over stretches of slots x seconds x max(0, best earnings - 1)

(`docs/work.md` has the proof). It is the dual of a linear programme, whose optimum is what the best schedule
costs; here prices are only searched for, by subgradients, and the search cannot make the bound wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_TURNS = 100
"""Turns of the search: within one or two per cent of the optimum on served loads."""
_VISITS = 200_000_000
"""Prices looked at in the search of one piece, at most: fewer turns where very many records are open."""
_PIECE = 1_000_000
"""Pairs of record and stretch that are searched together."""
_LARGEST = 8_000_000
"""A busy time with more pairs is priced at the records' fullest instants, without a search."""
_STEP, _SHRINK = 0.6, 0.8
_GROUP = 32
"""Records, neighbours in time, over which what is proven for them together is spread evenly."""


@dataclass(frozen=True)
class Stretches:
    """Time cut at every opening and closing. K stretches, N records, in the order of their starts."""

    seconds: Floats
    """(K,)"""
    levels: Ints
    """(K,) records open."""
    first: Ints
    """(N,) of each record its first stretch …"""
    last: Ints
    """(N,) … and the one after its last."""

    @property
    def pairs(self) -> Ints:
        """(N,) stretches of each record."""
        return self.last - self.first

    def members(self) -> list[tuple[Ints, Ints]]:
        """For each level L > 0: stretches (k,), and the records open in them (k, L)."""
        records = np.repeat(np.arange(len(self.first)), self.pairs)
        offset = np.cumsum(self.pairs) - self.pairs
        place = np.arange(len(records)) + np.repeat(self.first - offset, self.pairs)
        records = records[np.argsort(place, kind="stable")]
        begin = np.cumsum(self.levels) - self.levels
        found = []
        for level in np.unique(self.levels[self.levels > 0]):
            (which,) = np.nonzero(self.levels == level)
            found.append((which, records[begin[which][:, None] + np.arange(level)]))
        return found


def cut(start: Ints, end: Ints) -> Stretches:
    """Stretches of lives [start, end), in nanoseconds, each at least one long."""
    edges = np.unique(np.concatenate([start, end]))
    first, last = np.searchsorted(edges, start), np.searchsorted(edges, end)
    return Stretches(np.diff(edges) / 1e9, _levels(first, last, max(0, len(edges) - 1)), first, last)


def _levels(first: Ints, last: Ints, count: int) -> Ints:
    """(count,) how many records are open in each stretch."""
    change = np.bincount(first, minlength=count + 1) - np.bincount(last, minlength=count + 1)
    return np.cumsum(change)[:count]


def most_open(start: Ints, end: Ints) -> int:
    """The most records that were open at one instant; those that touch are open together."""
    return int(cut(*_lives(start, end)).levels.max(initial=1))


def _lives(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Half-open lives. Openings and closings of one nanosecond overlap: the larger batch is assumed."""
    return start, np.maximum(start, end) + 1


@dataclass(frozen=True)
class Decoding:
    """Core-seconds of N records."""

    least: Floats
    """(N,) that decoding took at the least; the sum is the bound."""
    shown: Floats
    """(N,) that it takes a server which has every open record in each step. An estimate: no bound."""
    full: Floats
    """(N,) of `shown`, what counts as time of full steps: of a step of b rows, of at most R, the part
    (b - 1) / (R - 1)."""


def decoding_seconds(  # noqa: PLR0917 - arrays that belong together, and the machine
    start: Ints, end: Ints, tokens: Ints, steps: Floats, slots: int, rows: int
) -> Decoding:
    """Core-seconds that decoding took, of N records in any order.

    `start` and `end` (N,) are nanoseconds; `tokens` (N,) the passes that each record needed, none for one
    that was open only. `steps` are core-seconds of a step of 1, 2, … rows, as many as records may be open;
    neither they nor their share for a row goes the wrong way: more rows take no less, and a row no more.
    `rows` is the most that a server of this kind takes into a step; only `shown` rests on it.

    The bound is spread over neighbours by what a token of theirs costs if every open record that
    needs tokens is in every step, and is never more than that: if the calibration is too slow, tokens seem
    not to fit into their time, and prices would know no end.
    """
    least, shown, full = (np.zeros(len(start)) for _ in range(3))
    order = np.argsort(start, kind="stable")
    lives = _lives(start[order], end[order])
    for piece in _pieces(*lives):
        of = order[piece]
        lived = lives[0][piece], lives[1][piece]
        found = _of_piece(*lived, tokens[of], steps, slots, rows)
        least[of], shown[of], full[of] = found.least, found.shown, found.full
    return Decoding(least, shown, full)


def _busy(start: Ints, end: Ints) -> Ints:
    """(N,) the number of the busy time that each record is in, ordered by start: none touches another."""
    latest = np.maximum.accumulate(end)
    return np.concatenate([[0], np.cumsum(start[1:] >= latest[:-1])])


def _pieces(start: Ints, end: Ints) -> Iterator[slice]:
    """Whole busy times, as many together as are searched at once."""
    if not len(start):
        return
    busy = _busy(start, end)
    sizes = np.bincount(busy, cut(start, end).pairs)
    group = np.cumsum(sizes) // _PIECE
    counts = np.bincount(np.unique(group, return_inverse=True)[1], np.bincount(busy)).astype(int)
    for stop, count in zip(np.cumsum(counts), counts, strict=True):
        yield slice(stop - count, stop)


def _of_piece(  # noqa: PLR0917 - as above
    start: Ints, end: Ints, tokens: Ints, steps: Floats, slots: int, rows: int
) -> Decoding:
    stretches, busy = cut(start, end), _busy(start, end)
    shares = np.append(steps / np.arange(1, len(steps) + 1), 0.0)  # the last one is for nobody
    ranges = np.stack([stretches.first, stretches.last], axis=1).ravel()
    lowest = np.minimum.reduceat(np.append(shares[stretches.levels - 1], 0.0), ranges)[::2]
    # Evenly: all that are open and have tokens in every step.
    needed = _levels(stretches.first[tokens > 0], stretches.last[tokens > 0], len(stretches.levels))

    def over_life(values: Floats) -> Floats:
        """(N,) the mean of the values (K,), over each record's life."""
        area = np.concatenate([[0.0], np.cumsum(values * stretches.seconds)])
        found: Floats = (area[stretches.last] - area[stretches.first]) * 1e9 / (end - start)
        return found

    def mean(prices: Floats) -> Floats:
        """(N,) of the prices (K,); sums of very long times are not exact."""
        kept: Floats = np.clip(over_life(prices), lowest, steps[0])
        return kept

    even = mean(shares[needed - 1])
    # Where more wait than fit into a step, a token costs what it does in a full one.
    taken = np.minimum(needed, rows)
    shown = tokens * mean(shares[taken - 1])
    full = np.clip(tokens * over_life(shares[taken - 1] * (taken - 1) / max(1, rows - 1)), 0.0, shown)
    least: Floats = np.multiply(tokens, lowest, dtype=np.float64)
    if stretches.pairs.sum() > _LARGEST or np.all(least >= (1 - 1e-12) * tokens * even):
        return Decoding(least, shown, full)
    proven = _search(_Game(stretches.members(), stretches.seconds, tokens, steps, slots), busy, least, even)
    spread = _spread(proven, tokens * even, busy)
    better = np.bincount(busy, spread) > np.bincount(busy, least)
    return Decoding(np.where(better[busy], spread, least), shown, full)


@dataclass(frozen=True)
class _Game:
    """What the fastest machine does at given prices."""

    members: list[tuple[Ints, Ints]]
    seconds: Floats
    tokens: Ints
    steps: Floats
    slots: int

    def answer(self, prices: Floats) -> tuple[Floats, Floats]:
        """Earnings (N,) less the excess that may not have been spent, and tokens (N,) that earn it.

        The excess of a stretch is put to the records that earn it, in proportion to their prices.
        """
        count = len(prices)
        excess, taken = np.zeros(count), np.zeros(count)
        for which, records in self.members:
            level = records.shape[1]
            price = prices[records]
            order = np.argsort(-price, axis=1)
            earned = np.cumsum(np.take_along_axis(price, order, 1), axis=1) / self.steps[:level]
            best = np.argmax(earned, axis=1)
            rate = earned[np.arange(len(which)), best]
            (over,) = np.nonzero(rate > 1)
            if not len(over):
                continue
            runs = self.slots * self.seconds[which[over]] / self.steps[best[over]]
            rows = np.arange(level) <= best[over, None]
            who = np.take_along_axis(records[over], order[over], 1)[rows]
            runs, part = (np.repeat(x, best[over] + 1) for x in (runs, 1 - 1 / rate[over]))
            taken += np.bincount(who, runs, count)
            excess += np.bincount(who, runs * prices[who] * part, count)
        return self.tokens * prices - excess, taken


def _search(game: _Game, busy: Ints, least: Floats, even: Floats) -> Floats:
    """(N,) the best parts of the bound that are found, for each busy time: never less than `least` there."""
    tokens, alone = game.tokens, float(game.steps[0])
    best, value = least, np.bincount(busy, least)

    def keep(parts: Floats) -> None:
        nonlocal best, value
        sums = np.bincount(busy, parts)
        best = np.where((sums > value)[busy], parts, best)
        value = np.maximum(sums, value)

    visits = sum(records.size for _, records in game.members)
    turns = int(np.clip(_VISITS // max(1, visits), 10, _TURNS))
    prices = np.where(tokens > 0, even, 0.0)
    middle = np.zeros(len(prices))
    for turn in range(turns):
        parts, taken = game.answer(prices)
        keep(parts)
        # A record whose tokens cannot all be had so cheaply may be dearer, one that is wanted too often not.
        lack = np.where(tokens > 0, np.clip((tokens - taken) / np.maximum(tokens, 1), -2, 1), 0.0)
        prices = np.clip(prices + _STEP * alone / (turn + 1) ** _SHRINK * lack, 0, alone)
        if turn >= turns // 2:
            middle += prices
    keep(game.answer(middle / (turns - turns // 2))[0])
    return best


def _spread(proven: Floats, even: Floats, busy: Ints) -> Floats:
    """(N,) the sum of `proven` over neighbours, in proportion to `even` and at most that."""
    place = np.arange(len(busy)) - np.searchsorted(busy, busy)
    group: Any = np.unique(np.stack([busy, place // _GROUP]), axis=1, return_inverse=True)[1].ravel()
    sums = np.bincount(group, proven)
    # What one group lacks its busy time has to pay: the bound is about the sum.
    had, paid = (np.bincount(busy, x[group] / np.bincount(group)[group]) for x in (sums, np.maximum(sums, 0)))
    factor = np.divide(had, paid, out=np.zeros(len(had)), where=paid > 0)[busy]
    whole = np.bincount(group, even)[group]
    share = np.divide(np.maximum(sums, 0)[group] * factor, whole, out=np.zeros(len(even)), where=whole > 0)
    parts: Floats = even * np.clip(share, 0, 1)
    return parts
