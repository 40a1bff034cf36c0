"""The edges of top-k and top-p when every tempered logit may move by at most `beta`.

Two questions about a token, z (V,) the tempered logits and the box |x_v - z_v| <= beta:

* can it survive the filters somewhere in the box, and does it survive everywhere in it? Both depend on z
  alone and are monotone in it, so each is one threshold a row (`edges`, vectorised over rows);
* can it *win* somewhere in the box, given the noise? `Row.admits`, exact, one token at a time (tests E and F
  of docs/proofs/admissible-sets.md, whose names the comments use).

Filters: top-k keeps every token that fewer than k strictly exceed; then top-p, on the softmax of what is
left, drops a token when the probability ranked above it is at least p and never drops the first. The order of
equal logits in an engine's sort is not specified, so any order counts as possible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.errors import UsageError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Our own sums are rounded too: the exact test widens p by at least this much ...
_SUM_ROUNDING = 2.0**-40
# ... and the thresholds, which subtract cumulative sums, err to the safe side by this share of the total.
_THRESHOLD_SLACK = 1e-10
_FLOOR_STEPS = 6


@dataclass(frozen=True)
class FilterRule:
    """Top-k and top-p with the tolerance for an engine's float32 sums put in.

    `top_k` is None when off; `nucleus` says whether top-p is on. A token may survive while the probability
    above it is < `survive_p` = p + tolerance, and may fall out when it is >= `drop_p` = p - tolerance.
    """

    top_k: int | None
    nucleus: bool
    survive_p: float
    drop_p: float

    @classmethod
    def of(cls, top_k: int, top_p: float, vocabulary: int, tolerance: float) -> FilterRule:
        """Raises UsageError for a top-k below 0, a top-p outside [0, 1] or a tolerance outside [0, 1)."""
        if top_k < 0:
            raise UsageError(f"top_k is {top_k}; use a positive number, or 0 for no top-k filter.")
        if not 0 <= top_p <= 1:
            raise UsageError(f"top_p is {top_p}; use a number from 0 to 1 (1 turns it off).")
        if not 0 <= tolerance < 1:
            raise UsageError(f"The probability tolerance is {tolerance}; use a number in [0, 1).")
        slack = max(tolerance, _SUM_ROUNDING)
        nucleus = top_p < 1
        return cls(
            top_k=top_k if 0 < top_k < vocabulary else None,
            nucleus=nucleus,
            survive_p=top_p + slack if nucleus else math.inf,
            drop_p=top_p - slack if nucleus else math.inf,
        )

    @property
    def active(self) -> bool:
        return self.nucleus or self.top_k is not None


@dataclass(frozen=True)
class Edges:
    """Thresholds on z, one a row, each (T,).

    A token below `survivable` is dropped everywhere in the box; one at or above `certain` is kept everywhere
    in it (+inf: none is); tokens below `relevant` matter only by the sum of their probabilities, and with
    top-k on not at all.
    """

    survivable: Floats
    certain: Floats
    relevant: Floats


def filter_floor(z: Floats, beta: Floats, rule: FilterRule) -> Floats:
    """Levels (T,) below which tokens of z (T, V), maximum 0, matter by their mass alone; no sort.

    Top-k: `relevant` itself, from two order statistics. Top-p alone, p that of `survive_p`: with S the sum of
    e^z and q = p e^2b / (1 - p + p e^2b), the level t is one below which at most (1 - q) S lies, and so at
    least q S at or above it (t = log((1 - q) S / V) is one; halving finds a better one). A token with
    z + 2b < t has all of that above it under every perturbation, against at most (1 - q) S e^2b of its own
    level and below: a share of at least p, so that it falls out everywhere. Hence `survivable` >= t - 2b, and
    `relevant` >= t - 4b.
    """
    rows, width = z.shape
    if rule.top_k is not None:
        upper = np.partition(z, width - rule.top_k - 1, axis=1)[:, width - rule.top_k - 1 :]
        following, kth = upper[:, 0], upper[:, 1:].min(axis=1)
        return np.asarray(np.minimum(kth - 4 * beta, following - 2 * beta))
    p = rule.survive_p + _THRESHOLD_SLACK
    if p >= 1:
        return np.full(rows, -np.inf)
    weights = np.exp(z)
    left = (1 - p) / (1 - p + p * np.exp(np.minimum(2 * beta, 700.0)))
    left *= (1 - _THRESHOLD_SLACK) * weights.sum(axis=1)
    low, high = np.log(left / width), np.zeros(rows)  # less than `left` lies below the former
    for _ in range(_FLOOR_STEPS):
        middle = (low + high) / 2
        holds = np.where(z < middle[:, None], weights, 0.0).sum(axis=1) <= left
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return np.asarray(low - 4 * beta)


def edges(z: Floats, beta: Floats, rule: FilterRule, tail: Floats | None = None) -> Edges:
    """The thresholds of each row of z (T, V) under beta (T,), `survivable` erring down, `certain` up.

    `z` may leave out tokens below `filter_floor`; `tail` (T,) is then the log of their mass.
    """
    rows, width = z.shape
    if not rule.active:
        low = np.full(rows, -np.inf)
        return Edges(low, low, low)
    if rule.top_k is None:
        ordered = _descending(z)
        survivable, certain = _nucleus_edges(ordered, beta, rule, tail)
        return Edges(survivable, certain, survivable - 2 * beta)
    k = rule.top_k
    order_statistics = np.partition(z, (width - k - 1, width - k), axis=1)
    following, kth = order_statistics[:, width - k - 1], order_statistics[:, width - k]
    survivable, certain = kth - 2 * beta, np.nextafter(following + 2 * beta, np.inf)
    if rule.nucleus:
        # No token below z_(k) - 2 beta is ever among the k, ties included: such tokens are out of play.
        ordered = _descending(_compact(z, survivable))
        nucleus_survivable, certain = _nucleus_edges(ordered, beta, rule)
        survivable = np.maximum(survivable, nucleus_survivable)
    return Edges(survivable, certain, np.minimum(survivable, following) - 2 * beta)


def _descending(z: Floats) -> Floats:
    ordered: Floats = np.sort(z, axis=1)[:, ::-1]
    return ordered


def _compact(z: Floats, floor: Floats) -> Floats:
    """The entries of each row at or above its floor, padded with -inf to a common width."""
    rows, columns = np.nonzero(z >= floor[:, None])
    counts = np.bincount(rows, minlength=len(z))
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    compact = np.full((len(z), int(counts.max())), -np.inf)
    compact[rows, places] = z[rows, columns]
    return compact


def _nucleus_edges(
    ordered: Floats, beta: Floats, rule: FilterRule, tail: Floats | None = None
) -> tuple[Floats, Floats]:
    """Thresholds (survivable, certain) from rows sorted downwards; -inf entries are padding."""
    rows = np.arange(len(ordered))
    width = ordered.shape[1]
    weights = np.exp(ordered - ordered[:, :1])
    sums = np.zeros((len(ordered), width + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    total, shrink = sums[:, -1].copy(), np.exp(-2 * beta)
    if tail is not None:
        total += np.exp(tail - ordered[:, 0])
    slack = _THRESHOLD_SLACK * total

    def survives(index: Integers) -> NDArray[np.bool_]:
        forced = _count(ordered, ordered[rows, index] + 2 * beta, inclusive=False)
        above = sums[rows, forced] * shrink
        below = (index + 1 - forced) * weights[rows, index] + total - sums[rows, index + 1]
        return above * (1 - rule.survive_p) <= rule.survive_p * (below + slack)

    def is_certain(index: Integers) -> NDArray[np.bool_]:
        reach = _count(ordered, ordered[rows, index] - 2 * beta, inclusive=True)
        above = sums[rows, reach] - weights[rows, index]
        kept = width if rule.top_k is None else rule.top_k
        end = total if kept >= width else sums[:, kept]
        below = weights[rows, index] + np.maximum(end - sums[rows, reach], 0)
        holds = above * (1 - rule.drop_p) < rule.drop_p * shrink * (below - slack)
        return np.asarray(holds & (reach <= kept))

    survivable = np.full(len(ordered), -np.inf)
    if rule.survive_p < 1:
        survivable = ordered[rows, np.maximum(_last(survives, len(ordered), width), 0)]
    last = _last(is_certain, len(ordered), width)
    return survivable, np.where(last >= 0, ordered[rows, np.maximum(last, 0)], np.inf)


def _count(ordered: Floats, level: Floats, *, inclusive: bool) -> Integers:
    """How many entries of each descending row lie above (inclusive: at or above) its level."""
    below = ordered < level[:, None] if inclusive else ordered <= level[:, None]
    first = below.argmax(axis=1)
    return np.asarray(np.where(below[np.arange(len(below)), first], first, ordered.shape[1]))


def _last(predicate: Callable[[Integers], NDArray[np.bool_]], rows: int, width: int) -> Integers:
    """The last index in each row where a predicate that turns from true to false once holds, or -1."""
    low, high = np.full(rows, -1), np.full(rows, width)
    for _ in range(width.bit_length()):
        middle = (low + high) // 2
        inside = high - low > 1
        holds = predicate(np.clip(middle, 0, width - 1)) & inside
        low = np.where(holds, middle, low)
        high = np.where(inside & ~holds, middle, high)
    return low


@dataclass(frozen=True)
class Row:
    """One row's relevant tokens, z descending, for the exact test.

    `lower` and `upper` (n,) bound each token's noise; `tail` is the log of the sum of e^z over all tokens
    left out (-inf when they can never be kept).
    """

    tokens: Integers
    z: Floats
    lower: Floats
    upper: Floats
    beta: float
    tail: float
    rule: FilterRule

    @classmethod
    def of(
        cls,
        z: Floats,
        lower: Floats,
        upper: Floats,
        *,
        beta: float,
        relevant: float,
        rule: FilterRule,
        tail: float = -math.inf,
    ) -> Row:
        """From a row: z, lower, upper (n,), its `Edges.relevant`, and the `tail` of what z leaves out."""
        inside = z >= relevant
        tokens = np.flatnonzero(inside)
        tokens = tokens[np.argsort(-z[tokens], kind="stable")]
        outside = z[~inside]
        if rule.top_k is not None:
            tail = -math.inf
        elif len(outside):
            largest = max(float(outside.max()), tail)
            tail = largest + math.log(float(np.exp(outside - largest).sum()) + math.exp(tail - largest))
        return cls(tokens, z[tokens], lower[tokens], upper[tokens], beta, tail, rule)

    def admits(self, index: int) -> bool:
        """Whether `tokens[index]` wins for some perturbation within beta and some noise within its bounds."""
        lowest, highest = self.z - self.beta, self.z[index] + self.beta
        score = highest + self.upper[index]
        rivals = lowest + self.lower > score  # U: beat it wherever they are, so they must be filtered out
        rivals[index] = False
        first = int(rivals.argmax())
        if not rivals[first]:
            return self._survives(index)
        if lowest[first] > highest:  # a rival that always ranks above it is kept whenever it is
            return False
        with np.errstate(over="ignore"):
            return self._survives(index) and self._rivals_fall(index, rivals, float(lowest[first]), score)

    def _survives(self, index: int) -> bool:
        """Test E: some point of the box keeps the token, with no sure rival above it."""
        k, p, beta, z = self.rule.top_k, self.rule.survive_p, self.beta, float(self.z[index])
        others = np.delete(self.z, index)
        forced = int(np.count_nonzero(others - beta > z + beta))  # H
        if k is not None and forced > k - 1:
            return False
        if p >= 1 or forced == 0:
            return True
        with np.errstate(over="ignore"):
            above = float(np.exp(others[:forced] - z - 2 * beta).sum())
            level = np.exp(
                np.minimum(others[forced:] - z, 0)
            )  # all that can share the token's level, or less
            if k is None:
                return above * (1 - p) < p * (1 + float(level.sum()) + math.exp(self.tail - z))
            if forced <= k - 2:
                places = (
                    k - 2 - forced
                )  # free places strictly above the k-th value, which any number may share
                shared = level[places:][others[k - 2 :] >= others[k - 2] - 2 * beta]
                tied = float((np.arange(1, len(shared) + 1) * shared).max())
                if above * (1 - p) < p * (1 + float(level[:places].sum()) + tied):
                    return True
            return self._survives_tied(index, others)

    def _survives_tied(self, index: int, others: Floats) -> bool:
        """Test E where the token itself lies at the k-th value, shared with others, and below z + beta."""
        assert self.rule.top_k is not None  # noqa: S101 - for the type checker: callers have top-k on
        k, p, beta, z = self.rule.top_k, self.rule.survive_p, self.beta, float(self.z[index])
        noise = np.delete(self.lower, index)[: k - 1]
        least = float((others[: k - 1] - beta + noise).max()) - float(self.upper[index])
        lowest = max(z - beta, float(others[k - 1]) - beta, least)
        highest = min(z + beta, float(others[k - 2]) - beta)
        if lowest > highest:
            return False
        above = float(np.exp(others[: k - 1] - beta - highest).sum())
        shared = others[k - 1 :] + beta
        best = 1.0 + float(np.count_nonzero(shared >= highest))
        inside = (shared >= lowest) & (shared <= highest)
        if inside.any():
            counts = np.arange(2, len(shared) + 2)[inside]
            best = max(best, float((counts * np.exp(shared[inside] - highest)).max()))
        return above * (1 - p) < p * best

    def _rivals_fall(self, index: int, rivals: NDArray[np.bool_], level: float, score: float) -> bool:
        """Test F: some point of the box filters all rivals out; `level` is the highest one's lowest z."""
        k, p = self.rule.top_k, self.rule.drop_p
        cap = np.minimum(self.z + self.beta, score - self.lower)
        cap[index] = self.z[index] + self.beta
        above = ~rivals & (cap >= level)  # S
        size = int(np.count_nonzero(above))
        if k is not None and size >= k:
            return True
        if not self.rule.nucleus:
            return False
        rest = (self.z - self.beta)[~above]
        if k is not None:
            rest = rest[: k - size]
        below = float(np.exp(rest - level).sum()) + math.exp(self.tail - self.beta - level)
        return p <= 0 or float(np.exp(cap[above] - level).sum()) * (1 - p) >= p * below
