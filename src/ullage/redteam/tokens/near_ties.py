"""The tokens nearest to winning at a position: where a server that wants to stay unnoticed has a choice.

Everybody who holds the declared model, the prompts and the seeds can compute them: the sender, the
receiver outside, and the verifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.audit.admissible.profile_sets import profile_sets
from ullage.errors import UsageError
from ullage.sampling.address import NoiseAddress
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile
from ullage.sampling.support import find_support
from ullage.server.chooser import DEFAULT_PROFILE
from ullage.server.rows import Row

COUNT = 32
"""Tokens kept a position. Without filters the number within d logits of the winner is geometric with mean
e^d at temperature 1: more than 32 within one logit come once in two million positions."""

BOUNDS = (0.016, 0.05, 0.2, 0.5)
"""Noise bounds b that the game's near-tie senders use and the verifier prices, in raw logit units."""

_BLOCK_ROWS = 128


@dataclass(frozen=True)
class NearTies:
    """`tokens` (T, C), the seeded winner first, then by `least_bounds` and gap; -1 where there are fewer.

    `gaps` (T, C): raw logit units, 0 for the winner, inf for tokens that the reference's filters leave out.
    `least_bounds` (T, C): the least noise bound b with the token in A_t(b), inf for none. Without filters
    that is half of the gap; with filters, which such noise moves too, the least of the bounds asked for.
    """

    tokens: NDArray[np.int64]
    gaps: NDArray[np.float64]
    least_bounds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def by_gap(cls, tokens: NDArray[np.int64], gaps: NDArray[np.float64]) -> NearTies:
        """Where filters do not move: a token wins for some error of at most b iff its gap is at most 2b."""
        return cls(tokens, gaps, gaps / 2)


@dataclass(frozen=True)
class Place:
    """One position as sender and receiver see it.

    `tokens`, `gaps`, `least_bounds` (C,): a row of `NearTies`. `prefix` is all that stands before it, prompt
    included.
    """

    tokens: NDArray[np.int64]
    gaps: NDArray[np.float64]
    least_bounds: NDArray[np.float64]
    seed: int
    prefix: Sequence[int]
    step: int

    @property
    def winner(self) -> int:
        return int(self.tokens[0])

    def within(self, bound: float) -> int:
        """How many of the tokens win for some error of the logits of at most `bound`: |A_t(b)|, as far as
        the columns go. They are the first ones."""
        return int(np.searchsorted(self.least_bounds, bound, side="right"))


def near_ties(
    logits: NDArray[np.float32],
    parameters: SamplingParameters,
    address: NoiseAddress,
    bounds: Sequence[float] = (),
    count: int = COUNT,
) -> NearTies:
    """The nearest tokens for raw logits (T, V) under the default profile. At temperature 0 the gaps are
    those of the logits themselves.

    `bounds`: with filters, sets A_t(b) are found for these b, tokens at the filters' edges included; for
    none only tokens inside the filters are found.
    """
    parts = [
        _block(logits[start : start + _BLOCK_ROWS], parameters, _slice(address, start), bounds, count)
        for start in range(0, len(logits), _BLOCK_ROWS)
    ]
    if not parts:
        return NearTies.by_gap(np.empty((0, count), np.int64), np.empty((0, count)))
    return NearTies(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.gaps for part in parts]),
        np.concatenate([part.least_bounds for part in parts]),
    )


def places(logits: NDArray[np.float32], rows: Sequence[Row], bounds: Sequence[float] = ()) -> list[Place]:
    """What a chooser sees: one place for each of the logits' rows (B, V); `bounds` as in `near_ties`."""
    found: list[Place | None] = [None] * len(rows)
    groups: dict[SamplingParameters, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.parameters, []).append(index)
    for parameters, members in groups.items():
        address = NoiseAddress(
            seeds=np.array([rows[index].seed for index in members], np.uint64),
            positions=np.array([rows[index].position for index in members], np.int64),
            steps=np.array([len(rows[index].output_ids) for index in members], np.int64),
        )
        ties = near_ties(logits[members], parameters, address, bounds)
        for at, index in enumerate(members):
            found[index] = place_of(ties, at, rows[index], len(rows[index].output_ids))
    return [place for place in found if place is not None]


def place_of(ties: NearTies, at: int, row: Row, step: int) -> Place:
    """Entry `at` of `ties` as the place before output token `step` of a row."""
    prefix = [*row.prompt_ids, *row.output_ids[:step]]
    return Place(ties.tokens[at], ties.gaps[at], ties.least_bounds[at], row.seed, prefix, step)


def _slice(address: NoiseAddress, start: int) -> NoiseAddress:
    here = slice(start, start + _BLOCK_ROWS)
    return NoiseAddress(address.seeds[here], address.positions[here], address.steps[here])


def _block(
    logits: NDArray[np.float32],
    parameters: SamplingParameters,
    address: NoiseAddress,
    bounds: Sequence[float],
    count: int,
) -> NearTies:
    temperature = 1.0
    if parameters.greedy:
        noised = logits.astype(np.float64)
        ids = np.arange(logits.shape[1], dtype=np.int64)[None]
    else:
        profile = get_profile(DEFAULT_PROFILE)
        if not isinstance(profile, GumbelProfile):
            raise UsageError(f"The profile {DEFAULT_PROFILE} has no noise that can be looked at.")
        temperature = parameters.temperature
        support = find_support(logits, 0, parameters)
        ids = support.ids
        here = np.arange(len(logits))[:, None]
        noised = support.scaled + profile.noise(address, logits.shape[1]).at(here, ids)
        if bounds and parameters.filters(logits.shape[1]):
            ids = np.broadcast_to(ids, noised.shape)
            nearest = _nearest(noised, ids, temperature, count)
            return _with_edges(nearest, logits, parameters, address, bounds)
    return _nearest(noised, ids, temperature, count)


def _nearest(noised: NDArray[np.float64], ids: NDArray[np.int64], temperature: float, count: int) -> NearTies:
    """The `count` largest scores of each row (B, K), whose tokens are `ids` (B, K) or (1, K)."""
    kept = min(count, noised.shape[1])
    order = np.argpartition(-noised, kept - 1, axis=1)[:, :kept]
    order = np.take_along_axis(
        order, np.argsort(-np.take_along_axis(noised, order, axis=1), axis=1, kind="stable"), axis=1
    )
    scores = np.take_along_axis(noised, order, axis=1)
    gaps = np.full((len(noised), count), np.inf)
    tokens = np.full((len(noised), count), -1, np.int64)
    gaps[:, :kept] = temperature * (scores[:, :1] - scores)
    tokens[:, :kept] = np.take_along_axis(np.broadcast_to(ids, noised.shape), order, axis=1)
    tokens[~np.isfinite(gaps)] = -1
    return NearTies.by_gap(tokens, gaps)


def _with_edges(
    nearest: NearTies,
    logits: NDArray[np.float32],
    parameters: SamplingParameters,
    address: NoiseAddress,
    bounds: Sequence[float],
) -> NearTies:
    """`nearest` of filtered logits (B, V) with the tokens at the filters' edges, by the least bound."""
    profile = get_profile(DEFAULT_PROFILE)
    least: list[dict[int, float]] = [{int(row[0]): 0.0} for row in nearest.tokens]  # the winner
    for bound in sorted(bounds):
        sets = profile_sets(profile, logits, parameters, address, bound)
        for at in np.flatnonzero(sets.counts > 1):
            for token in sets.row(int(at)).tolist():
                least[at].setdefault(token, bound)
    shape = nearest.tokens.shape
    found = NearTies(np.full(shape, -1, np.int64), np.full(shape, np.inf), np.full(shape, np.inf))
    for index, members in enumerate(least):
        gap_of = dict(zip(nearest.tokens[index].tolist(), nearest.gaps[index].tolist(), strict=True))
        gap_of.pop(-1, None)
        entries = sorted(
            (members.get(token, np.inf), gap_of.get(token, np.inf), token)
            for token in gap_of.keys() | members.keys()
        )[: shape[1]]
        for column, (least_bound, gap, token) in enumerate(entries):
            found.least_bounds[index, column], found.gaps[index, column] = least_bound, gap
            found.tokens[index, column] = token
    return found
