"""A block of rows, ready for the test of membership: thresholds, scores at the noise's two ends, the answers.

`admissible.py` says what the sets are; the theorem is in docs/proofs/admissible-sets.md, its section 8 the
fast path here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.audit.admissible.filter_edges import Edges, FilterRule, Floats, Integers, Row, edges, filter_floor
from ullage.errors import FaultError, UsageError

# Stands for infinity, so that differences stay numbers: logits of -inf, noise of -inf where a uniform is 1.
_HUGE = 1e30
# Rounding of z +- beta and z + g for |z|, |g| up to some hundreds, as a widening of beta.
_ROUNDING = 2.0**-45

Mask = NDArray[np.bool_]
Logits = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class NoiseInterval:
    """Noise known up to an error: `lower` <= g <= `upper`, arrays of one shape, in z-units."""

    lower: Floats
    upper: Floats


Noise = Floats | NoiseInterval | Callable[[Integers, Integers], Floats | NoiseInterval]


@dataclass(frozen=True)
class AdmissibleSets:
    """One set of token ids a row, ascending: row t's are `tokens[offsets[t]:offsets[t + 1]]`."""

    offsets: Integers  # (T + 1,)
    tokens: Integers  # (offsets[-1],)

    @property
    def counts(self) -> Integers:
        """|A_t| for each row, (T,); at least 1."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, t: int) -> Integers:
        return self.tokens[self.offsets[t] : self.offsets[t + 1]]

    @classmethod
    def of_mask(cls, mask: Mask) -> AdmissibleSets:
        """From membership (T, V)."""
        rows, tokens = np.nonzero(mask)
        counts = np.bincount(rows, minlength=len(mask))
        return cls(np.concatenate(([0], np.cumsum(counts))).astype(np.int64), tokens.astype(np.int64))


@dataclass(frozen=True)
class Block:
    """Some rows, ready: z with maximum 0, scores z + g at the noise's two ends, thresholds; all (B, K).

    Without filters K = V. With filters the columns are the tokens that can matter, `tokens` (B, K) their ids,
    ascending and padded with -1, and `tail` (B,) the log of the mass of all others.
    """

    tokens: Integers | None
    tail: Floats
    z: Floats
    lower: Floats
    upper: Floats
    beta: Floats
    rule: FilterRule
    edges: Edges
    low_score: Floats
    high_score: Floats
    leader: Floats  # (B,) largest low score of the tokens that are kept everywhere in the box
    rival: Floats  # (B,) the same over the tokens that are kept somewhere

    @classmethod
    def of(
        cls,
        logits: Logits,
        noise: Noise,
        rows: slice,
        *,
        temperature: float,
        beta: Floats,
        rule: FilterRule,
    ) -> Block:
        """Of raw logits (B, V), which are `rows` of the whole; beta (B,)."""
        z, beta = shifted(logits, temperature), padded(beta)
        tokens, tail = None, np.full(len(z), -np.inf)
        if rule.active:
            tokens, z, tail = _relevant(z, beta, rule)
        edge = edges(z, beta, rule, tail)
        lower, upper = _noise_of(noise, rows, z, edge.relevant, tokens)
        low_score = z + lower
        high_score = low_score if upper is lower else z + upper
        rival = leader = low_score.max(axis=1)
        if rule.active:
            leader = low_score.max(axis=1, initial=-np.inf, where=z >= edge.certain[:, None])
            rival = low_score.max(axis=1, initial=-np.inf, where=z >= edge.survivable[:, None])
        return cls(tokens, tail, z, lower, upper, beta, rule, edge, low_score, high_score, leader, rival)

    def sets(self, members: Mask) -> AdmissibleSets:
        """Membership (B, K) as sets of ids."""
        found = AdmissibleSets.of_mask(members)
        if self.tokens is None:
            return found
        return AdmissibleSets(found.offsets, self.tokens[members])

    def candidates(self) -> Mask:
        """A superset of the members: survivors somewhere that can reach what is surely kept. (B, K)."""
        reach = self.leader - 2 * self.beta
        found = self.high_score >= reach[:, None]
        if self.rule.active:
            found &= self.z >= self.edges.survivable[:, None]
        return found

    def members(self, candidates: Mask) -> Mask:
        """The exact sets (B, K), from `candidates`, which is changed."""
        if not self.rule.active:
            return candidates
        for row in np.flatnonzero(np.count_nonzero(candidates, axis=1) > 1):
            tokens = np.flatnonzero(candidates[row])
            here = np.full(len(tokens), row)
            candidates[row, tokens[~self._decide(here, tokens)]] = False
        return candidates

    def admits(self, claimed: Integers) -> Mask:
        """Membership of one token a row, (B,)."""
        rows = np.arange(len(claimed))
        if self.tokens is None:
            return np.asarray(self.high_score[rows, claimed] >= self.leader - 2 * self.beta)
        there = self.tokens == claimed[:, None]
        place = there.argmax(axis=1)
        found = there.any(axis=1) & (self.high_score[rows, place] >= self.leader - 2 * self.beta)
        found &= self.z[rows, place] >= self.edges.survivable
        here = np.flatnonzero(found)
        found[here] = self._decide(here, place[here])
        return np.asarray(found)

    def _decide(self, rows: Integers, tokens: Integers) -> Mask:
        """The exact answer for candidates, columns (N,) in rows (N,) that ascend."""
        # Kept everywhere, and beats at its best all that are kept anywhere at their worst: no test needed.
        accepted = np.asarray(
            (self.z[rows, tokens] >= self.edges.certain[rows])
            & (self.high_score[rows, tokens] + 2 * self.beta[rows] >= self.rival[rows])
        )
        current = -1
        for place in np.flatnonzero(~accepted):
            if rows[place] != current:
                current = int(rows[place])
                row = self._row(current)
            accepted[place] = row.admits(int((row.tokens == tokens[place]).argmax()))
        return accepted

    def _row(self, row: int) -> Row:
        return Row.of(
            self.z[row],
            self.lower[row],
            self.upper[row],
            beta=float(self.beta[row]),
            relevant=float(self.edges.relevant[row]),
            tail=float(self.tail[row]),
            rule=self.rule,
        )


def _relevant(z: Floats, beta: Floats, rule: FilterRule) -> tuple[Integers, Floats, Floats]:
    """The tokens (B, K) of each row that filters can keep somewhere, and what it takes to decide about them.

    Returns ids, ascending and padded with -1; their z, padded with -_HUGE; the log of the mass of all tokens
    that are left out, (B,). See `filter_floor`.
    """
    inside = z >= filter_floor(z, beta, rule)[:, None]
    rows, columns = np.divmod(np.flatnonzero(inside), z.shape[1])
    counts = np.bincount(rows, minlength=len(z))
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    tokens = np.full((len(z), int(counts.max())), -1)
    compact = np.full(tokens.shape, -_HUGE)
    tokens[rows, places], compact[rows, places] = columns, z[rows, columns]
    tail = np.full(len(z), -np.inf)
    if rule.top_k is None:
        with np.errstate(divide="ignore"):
            tail = np.log(np.exp(np.where(inside, -np.inf, z)).sum(axis=1))
    return tokens, compact, tail


def _noise_of(
    noise: Noise, rows: slice, z: Floats, relevant: Floats, tokens: Integers | None
) -> tuple[Floats, Floats]:
    """Bounds on the noise of a block, (B, K) each, finite; the same array twice when it is exact."""
    if callable(noise):
        here, places = np.nonzero(z >= relevant[:, None])
        given = noise(here + rows.start, places if tokens is None else tokens[here, places])
        lower = np.full(z.shape, -_HUGE)
        if isinstance(given, NoiseInterval):
            upper = np.full(z.shape, -_HUGE)
            lower[here, places], upper[here, places] = _finite(given.lower), _finite(given.upper)
            return lower, upper
        lower[here, places] = _finite(given)
        return lower, lower
    if isinstance(noise, NoiseInterval):
        return _columns(noise.lower[rows], z, tokens), _columns(noise.upper[rows], z, tokens)
    exact = _columns(noise[rows], z, tokens)
    return exact, exact


def _columns(noise: Floats, z: Floats, tokens: Integers | None) -> Floats:
    """The noise (B, V) of the tokens of a block (B, K), finite."""
    if noise.ndim != 2 or len(noise) != len(z) or (tokens is None and noise.shape != z.shape):
        raise UsageError(f"The noise has shape {noise.shape}, and the logits of these rows {z.shape}.")
    finite = _finite(noise)
    if tokens is None:
        return finite
    if tokens.max(initial=0) >= noise.shape[1]:
        raise UsageError(f"The noise has {noise.shape[1]} columns, fewer than there are tokens.")
    return np.where(tokens < 0, -_HUGE, np.take_along_axis(finite, np.maximum(tokens, 0), axis=1))


def _finite(values: Floats) -> Floats:
    if np.isnan(values).any():
        raise FaultError("The sampler's noise holds NaN; it cannot be replayed.")
    return np.clip(np.asarray(values, np.float64), -_HUGE, _HUGE)


def shifted(logits: Logits, temperature: float) -> Floats:
    """z = logits / T minus the row's maximum, float64 (B, V); -inf becomes hugely negative."""
    largest = logits.max(axis=1)
    if not np.isfinite(largest).all():
        raise FaultError("Some logits are NaN or +inf, or a row has none that is finite.")
    z = np.subtract(logits, largest[:, None], dtype=np.float64)
    if temperature != 1:
        z /= temperature
    return np.asarray(np.maximum(z, -_HUGE, out=z))


def padded(beta: Floats) -> Floats:
    """`beta` with room for our own rounding of z +- beta and z + g."""
    return np.asarray(beta + _ROUNDING * (1 + beta))
