"""Brute force for admissible sets: a slow sampler, and a search of the box of perturbations.

Nothing here shares code with `ullage.audit.admissible.filter_edges`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One position: z (V,), noise (V,), filters, and the bound."""

    z: Floats
    noise: Floats
    top_k: int
    top_p: float
    beta: float

    @property
    def k(self) -> int:
        return self.top_k if 0 < self.top_k < len(self.z) else len(self.z)

    def inside(self, x: Floats) -> Floats:
        return np.clip(x, self.z - self.beta, self.z + self.beta)


def outcome(case: Case, x: Floats, y: int, slack: float = 0.0) -> tuple[bool, bool]:
    """Under perturbed x: is y kept, and is a token that beats it kept, in the order of ties best for y?

    `slack` widens p both ways.
    """
    kept = np.array([np.count_nonzero(x > value) < case.k for value in x])
    if not kept[y]:
        return False, True
    weights = np.where(kept, np.exp(x - x.max()), 0.0)
    total = weights.sum()
    rivals = kept & (x + case.noise > x[y] + case.noise[y])
    if case.top_p >= 1:
        return True, bool(rivals.any())
    higher = kept & (x > x[y])
    if higher.any() and not weights[higher].sum() < (case.top_p + slack) * total:
        return False, True
    if not rivals.any():
        return True, False
    first = x[rivals].max()
    before = (kept & (x > first)) | (kept & (x == first) & ~rivals)
    falls = first <= x[y] and weights[before].sum() >= (case.top_p - slack) * total
    return True, not falls


def winners(case: Case, x: Floats, slack: float = 0.0) -> set[int]:
    """Tokens that win under x in some order of ties in the filter's sort."""
    return {y for y in range(len(x)) if outcome(case, x, y, slack) == (True, False)}


def survival_points(case: Case, y: int) -> Iterator[Floats]:
    """Points that keep y alive as well as possible: y high, ties at the k-th value at each level."""
    low, high = case.z - case.beta, case.z + case.beta
    others = [v for v in np.argsort(-case.z, kind="stable") if v != y]
    for top in [high[y], *(h for h in (*high, *low, *np.nextafter(low, -9)) if low[y] <= h < high[y])]:
        x = np.clip(np.minimum(high, top), low, high)
        x[y] = top
        yield x
        for level in [h for h in high if h <= top]:
            tied = x.copy()
            for rank, v in enumerate(others):
                if rank >= case.k - 2 and x[v] > level:
                    tied[v] = max(level, low[v])
            yield tied
            for rank, v in enumerate(others):
                if rank >= case.k - 1 and x[v] > level:
                    tied[v] = max(level, low[v])
                elif rank < case.k - 1:
                    tied[v] = x[v]
            yield tied


def fall_point(case: Case, y: int) -> Floats:
    """The point that drops the tokens which always beat y as well as possible, y kept or not."""
    low, high = case.z - case.beta, case.z + case.beta
    caps = np.minimum(high, high[y] + case.noise[y] - case.noise)
    caps[y] = high[y]
    rivals = low > caps
    level = low[rivals].max(initial=-np.inf)
    beaten = np.maximum(caps - 1e-13, low)  # clearly, whatever the rounding on the way there
    beaten[y] = high[y]
    apart = np.minimum(
        low + 1e-14 * np.arange(len(low)), high
    )  # no exact ties at the k-th value: they add mass
    return np.where(~rivals & (caps >= level), beaten, apart)


def reach(case: Case, y: int, slack: float) -> Floats | None:
    """A point of the box where y wins, by the proof's construction: from survival to fall, stop between."""
    end = fall_point(case, y)
    for start in survival_points(case, y):
        for x in _untied(case, start, y, slack):
            kept, beaten = outcome(case, x, y, slack)
            if not kept:
                break
            if not beaten:
                return x
            found = _between(case, x, end, y, slack)
            if found is not None:
                return found
    return None


def _untied(case: Case, x: Floats, y: int, slack: float) -> Iterator[Floats]:
    """x, then x with one tie after another at the k-th value lowered a little, rivals of y first."""
    yield x
    level = np.sort(x)[-case.k]
    tied = [v for v in range(len(x)) if x[v] == level and v != y]
    x = x.copy()
    for v in sorted(tied, key=lambda v: -case.noise[v]):
        x[v] -= 1e-13
        yield x.copy()


def _between(case: Case, start: Floats, end: Floats, y: int, slack: float) -> Floats | None:
    """The first moment on the line at which no kept token beats y, by bisection; None if y is lost there."""
    if outcome_rivals(case, end, y, slack):
        return None
    low, high = 0.0, 1.0
    for _ in range(90):
        middle = (low + high) / 2
        if outcome_rivals(case, start + middle * (end - start), y, slack):
            low = middle
        else:
            high = middle
    for share in (high, min(1.0, high + 1e-13), min(1.0, high + 1e-11)):
        x = case.inside(start + share * (end - start))
        if outcome(case, x, y, slack) == (True, False):
            return x
    return None


def outcome_rivals(case: Case, x: Floats, y: int, slack: float) -> bool:
    """Whether y is alive but beaten; once it is not, either it wins or it has been dropped."""
    kept, beaten = outcome(case, x, y, slack)
    return kept and beaten


def perturbations(case: Case, rng: np.random.Generator, samples: int) -> Iterator[Floats]:
    """Points of the box: random, corners, level cuts, lines between them, and the extremes of the proof."""
    size = len(case.z)
    low, high = case.z - case.beta, case.z + case.beta
    yield case.z
    if size <= 5:
        for signs in itertools.product((-1.0, 1.0), repeat=size):
            yield case.z + case.beta * np.array(signs)
    anchors = [fall_point(case, y) for y in range(size)]
    for y in range(size):
        points = list(survival_points(case, y))
        yield from points
        anchors += [points[i] for i in rng.integers(len(points), size=3)]
    anchors += [case.z + case.beta * rng.choice((-1.0, 1.0), size) for _ in range(4)]
    levels = np.concatenate((low, high))
    for _ in range(samples):
        kind = rng.integers(4)
        if kind == 0:
            yield rng.uniform(low, high)
        elif kind == 1:  # everything pressed against a level: many exact ties
            yield case.inside(np.full(size, rng.choice(levels)))
        elif kind == 2:
            x = case.inside(np.minimum(high, rng.choice(levels)))
            y = int(rng.integers(size))
            x[y] = rng.choice((low[y], high[y]))
            yield x
        else:
            first, second = rng.integers(len(anchors), size=2)
            share = rng.random()
            yield case.inside(anchors[first] + share * (anchors[second] - anchors[first]))
