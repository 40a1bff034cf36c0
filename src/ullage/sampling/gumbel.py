"""What the Gumbel profiles share: token = argmax of (filtered logits / temperature + noise).

Gumbel-max: with independent standard Gumbel noise the argmax is a sample of the softmax (Gumbel 1954;
Maddison, Tarlow and Minka, "A* Sampling", 2014, section 2). A profile is a source of noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ullage.sampling import greedy
from ullage.sampling.address import NoiseAddress
from ullage.sampling.filters import scale
from ullage.sampling.logits import (
    CACHED_ELEMENTS,
    STREAMED_ELEMENTS,
    STREAMED_ROWS,
    as_claimed,
    as_logits,
    for_blocks,
    row_maxima,
)
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.race import HashNoise, guess, race
from ullage.sampling.scores import Scores, entropy_bits
from ullage.sampling.support import find_support


class Noise(Protocol):
    """The noise of all rows of one call."""

    def at(self, rows: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Noise of token `ids` at `rows` of the call, broadcast against each other.

        A value depends on its row's address and its id alone, bit for bit, whatever is asked with it.
        """
        ...


class GumbelProfile(ABC):
    """Scores and choices for any noise that can be computed token by token."""

    name: str
    position_addressed: bool

    @abstractmethod
    def noise(self, address: NoiseAddress, vocabulary_size: int) -> Noise:
        """The noise of these rows. Hash profiles return HashNoise, which opens the fast path."""

    def choose(
        self, logits: NDArray[np.float32], parameters: SamplingParameters, address: NoiseAddress
    ) -> NDArray[np.int64]:
        """The profile's tokens, (T,), for logits (T, V). Raises UsageError and FaultError (NaN, +inf)."""
        return self._score(as_logits(logits, address), None, parameters, address, entropy=False).reference

    def score(
        self,
        logits: NDArray[np.float32],
        claimed: NDArray[np.int64],
        parameters: SamplingParameters,
        address: NoiseAddress,
        *,
        entropy: bool = False,
    ) -> Scores:
        """Margin, rank and reference of claimed tokens (T,) under logits (T, V); see `Scores`.

        Raises UsageError for wrong shapes, MalformedError for ids outside the vocabulary, FaultError for
        rows with NaN, +inf or nothing finite.
        """
        given = as_logits(logits, address)
        return self._score(given, as_claimed(claimed, given), parameters, address, entropy=entropy)

    def _score(
        self,
        logits: NDArray[np.float32],
        claimed: NDArray[np.int64] | None,
        parameters: SamplingParameters,
        address: NoiseAddress,
        *,
        entropy: bool,
    ) -> Scores:
        if parameters.greedy:
            return greedy.score_rows(logits, claimed, entropy=entropy)
        vocabulary_size = logits.shape[1]
        scores = Scores.empty(len(logits))
        noise = self.noise(address, vocabulary_size)
        open_field = isinstance(noise, HashNoise) and not parameters.filters(vocabulary_size)

        def work(rows: slice) -> None:
            block = logits[rows]
            if open_field and isinstance(noise, HashNoise):
                _race_block(scores, rows, block, claimed, temperature=parameters.temperature, noise=noise)
                if entropy:
                    scores.entropy[rows] = entropy_bits(scale(block, parameters.temperature))
                return
            support = find_support(block, rows.start, parameters)
            here = np.arange(rows.start, rows.stop)[:, None]
            noised = support.scaled + noise.at(here, support.ids)
            own = np.zeros(len(block), np.int64) if claimed is None else claimed[rows]
            scores.fill(
                rows,
                noised,
                support.ids,
                own,
                temperature=parameters.temperature,
                vocabulary_size=vocabulary_size,
            )
            if entropy:
                scores.entropy[rows] = entropy_bits(support.scaled)

        streams = open_field or parameters.limits_top_k(vocabulary_size)
        for_blocks(
            logits,
            work,
            elements=STREAMED_ELEMENTS if streams else CACHED_ELEMENTS,
            min_rows=STREAMED_ROWS if streams else 1,
        )
        return scores


def _race_block(
    scores: Scores,
    rows: slice,
    block: NDArray[np.float32],
    claimed: NDArray[np.int64] | None,
    *,
    temperature: float,
    noise: HashNoise,
) -> None:
    """No filter, hashed noise: find the few tokens that can reach the claimed one's score."""
    maxima = row_maxima(block, rows.start)
    own = guess(block, maxima, temperature, noise, rows.start) if claimed is None else claimed[rows]
    left_over = race(scores, rows.start, block, maxima, own, temperature=temperature, noise=noise)
    if left_over.size:  # claimed tokens of probability zero, astronomically large logits
        scaled = scale(block[left_over], temperature)
        ids = np.arange(block.shape[1], dtype=np.int64)[None]
        absolute = left_over + rows.start
        noised = scaled + noise.at(absolute[:, None], ids)
        scores.fill(
            absolute, noised, ids, own[left_over], temperature=temperature, vocabulary_size=block.shape[1]
        )
