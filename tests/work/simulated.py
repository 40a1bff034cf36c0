"""A server that decodes records on a machine, as it likes, and says what that cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linprog

from ullage.work.inference import Costs
from ullage.work.least import Floats, Ints


@dataclass
class Life:
    """A record: times in seconds, tokens that its decoding has to take."""

    start: float
    tokens: int
    end: float = 0.0
    done: int = field(default=0, repr=False)


@dataclass(frozen=True)
class Load:
    """Records as a log has them (nanoseconds), and the core-seconds that they really took."""

    start: Ints
    end: Ints
    tokens: Ints
    cost: float

    def __add__(self, other: Load) -> Load:
        """Side by side on one machine."""
        pairs = ((self.start, other.start), (self.end, other.end), (self.tokens, other.tokens))
        start, end, tokens = (np.concatenate(pair) for pair in pairs)
        return Load(start, end, tokens, self.cost + other.cost)


Choice = Callable[[list[Life], bool], list[Life]]
"""Which of the open records the next step takes; none: wait. The flag: whether others are still to come."""


def everybody(opened: list[Life], more: bool) -> list[Life]:
    """All at once, as soon as they are there: what a server does."""
    return opened


def at_the_peaks(fewest: int) -> Choice:
    """Wait until so many are open: the cheapest batches that the log allows."""
    return lambda opened, more: [] if more and len(opened) < fewest else opened


def at_random(chance: random.Random) -> Choice:
    """Any of them, or nobody for a while."""
    return lambda opened, more: [one for one in opened if chance.random() < 0.7]


def serve(
    lives: Sequence[Life], steps: Sequence[float], cores: float, choose: Choice, wait: float = 0.004
) -> Load:
    """Steps one after the other, each at full speed: no server finds more room for cheap ones.

    `steps[b - 1]`: core-seconds of a step of b rows. A life's `end`, where given, is when it closes at the
    earliest: a tap may hear of it late.
    """
    ordered = sorted(lives, key=lambda life: life.start)
    now = cost = 0.0
    left = [life for life in ordered if life.tokens]
    while left:
        opened = [life for life in left if life.start <= now]
        batch = choose(opened, len(opened) < len(left)) if opened else []
        if not batch:
            now += wait
            continue
        cost += steps[len(batch) - 1]
        now += steps[len(batch) - 1] / cores
        for life in batch:
            life.done += 1
            life.end = max(life.end, now) if life.done == life.tokens else life.end
        left = [life for life in left if life.done < life.tokens]
    start = np.array([int(life.start * 1e9) for life in ordered], np.int64)
    end = np.array([int(np.ceil(max(life.end, life.start) * 1e9)) for life in ordered], np.int64)
    return Load(start, end, np.array([life.tokens for life in ordered], np.int64), cost)


def cheapest(start: Ints, end: Ints, tokens: Ints, line: tuple[float, float], slots: int) -> float | None:
    """What the best schedule of all costs, parts of steps allowed: a linear programme.

    `line`: a step of b rows costs line[0] + line[1] b core-seconds. None: the tokens do not fit.
    """
    edges = np.unique(np.concatenate([start, end]))
    seconds, records = np.diff(edges) / 1e9, len(start)
    pairs = [
        (record, k)
        for record in range(records)
        for k in range(len(seconds))
        if start[record] <= edges[k] < end[record]
    ]
    # Unknowns: steps in each stretch, then tokens of each pair; no record has more than there are steps.
    count = len(seconds)
    cost = np.concatenate([np.full(count, line[0]), np.full(len(pairs), line[1])])
    some, room, need = (np.zeros((n, len(cost))) for n in (len(pairs), count, records))
    room[:, :count] = np.diag(np.full(count, line[0]))
    for place, (record, k) in enumerate(pairs):
        some[place, [k, count + place]] = -1, 1
        room[k, count + place] = line[1]
        need[record, count + place] = 1
    most = np.concatenate([np.zeros(len(pairs)), slots * seconds])
    found = linprog(cost, np.concatenate([some, room]), most, need, tokens, method="highs")
    return float(found.fun) if found.status == 0 else None


def price_at_the_peak(load: Load, costs: Costs) -> Floats:
    """(N,) every token at the largest batch of its record's life: simple, and too low."""
    level = [
        max(
            int(((load.start <= t) & (load.end >= t)).sum())
            for t in load.start[(load.start >= a) & (load.start <= b)]
        )
        for a, b in zip(load.start, load.end, strict=True)
    ]
    prices = np.array([costs.decode_seconds(one) for one in level], np.float64)
    return np.multiply(load.tokens, prices, dtype=np.float64)
