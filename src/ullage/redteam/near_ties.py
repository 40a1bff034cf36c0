"""The tokens nearest to winning at a position: where a server that wants to stay unnoticed has a choice.

Everybody who holds the declared model, the prompts and the seeds can compute them: the sender, the
receiver outside, and the verifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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

_BLOCK_ROWS = 128


@dataclass(frozen=True)
class NearTies:
    """`tokens` (T, C) with falling noised score, the seeded winner first; `gaps` (T, C) raw logit units,
    0 for the winner, inf (and token -1) where the filters leave fewer."""

    tokens: NDArray[np.int64]
    gaps: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Place:
    """One position as sender and receiver see it.

    `tokens` (C,), `gaps` (C,): a row of `NearTies`. `prefix` is all that stands before it, prompt included.
    """

    tokens: NDArray[np.int64]
    gaps: NDArray[np.float64]
    seed: int
    prefix: Sequence[int]
    step: int

    @property
    def winner(self) -> int:
        return int(self.tokens[0])

    def within(self, bound: float) -> int:
        """How many of the tokens win for some error of the logits of at most `bound`: |A_t(b)| without
        filters; they are the first ones."""
        return int(np.searchsorted(self.gaps, 2 * bound, side="right"))


def near_ties(
    logits: NDArray[np.float32], parameters: SamplingParameters, address: NoiseAddress, count: int = COUNT
) -> NearTies:
    """The nearest tokens for raw logits (T, V) under the default profile. At temperature 0 the gaps are
    those of the logits themselves."""
    parts = [
        _block(logits[start : start + _BLOCK_ROWS], parameters, _slice(address, start), count)
        for start in range(0, len(logits), _BLOCK_ROWS)
    ]
    if not parts:
        return NearTies(np.empty((0, count), np.int64), np.empty((0, count)))
    return NearTies(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))


def places(logits: NDArray[np.float32], rows: Sequence[Row]) -> list[Place]:
    """What a chooser sees: one place for each of the logits' rows (B, V)."""
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
        ties = near_ties(logits[members], parameters, address)
        for place, index in enumerate(members):
            row = rows[index]
            prefix = [*row.prompt_ids, *row.output_ids]
            found[index] = Place(ties.tokens[place], ties.gaps[place], row.seed, prefix, len(row.output_ids))
    return [place for place in found if place is not None]


def _slice(address: NoiseAddress, start: int) -> NoiseAddress:
    here = slice(start, start + _BLOCK_ROWS)
    return NoiseAddress(address.seeds[here], address.positions[here], address.steps[here])


def _block(
    logits: NDArray[np.float32], parameters: SamplingParameters, address: NoiseAddress, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
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
        rows = np.arange(len(logits), dtype=np.int64)[:, None]
        noised = support.scaled + profile.noise(address, logits.shape[1]).at(rows, ids)
    kept = min(count, noised.shape[1])
    order = np.argpartition(-noised, kept - 1, axis=1)[:, :kept]
    order = np.take_along_axis(
        order, np.argsort(-np.take_along_axis(noised, order, axis=1), axis=1, kind="stable"), axis=1
    )
    scores = np.take_along_axis(noised, order, axis=1)
    gaps = np.full((len(logits), count), np.inf)
    tokens = np.full((len(logits), count), -1, np.int64)
    gaps[:, :kept] = temperature * (scores[:, :1] - scores)
    tokens[:, :kept] = np.take_along_axis(np.broadcast_to(ids, noised.shape), order, axis=1)
    tokens[~np.isfinite(gaps)] = -1
    return tokens, gaps
