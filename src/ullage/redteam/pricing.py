"""What the verifier makes of a game's traffic: the codelength bound, the walk, the alarm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.audit.alarm import first_crossing, log_e_process, mismatch_limits
from ullage.audit.codelength import ending_codelength, sum_by_message, token_codelength
from ullage.audit.noise_model import NoiseModel
from ullage.redteam.token_game import Traffic

ALPHA = 1e-4
KAPPA = 1.5
INFLATIONS = (4.0, 16.0)
STREAMS = 101


@dataclass(frozen=True)
class Priced:
    """Traffic in the verifier's terms, rows of all messages one after the other.

    gaps (T, C): of the candidates beside the winner. chosen (T,): -1 the winner, j candidate j, C another.
    """

    gaps: NDArray[np.float64]
    chosen: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, traffic: Traffic) -> Priced:
        tokens = np.concatenate([ties.tokens for ties in traffic.ties])
        gaps = np.concatenate([ties.gaps for ties in traffic.ties])
        said = np.concatenate([np.asarray(row.output_ids, np.int64) for row in traffic.messages])
        same = tokens == said[:, None]
        rank = np.where(same.any(axis=1), same.argmax(axis=1), tokens.shape[1])
        lengths = np.array([len(row.output_ids) for row in traffic.messages], np.int64)
        return cls(gaps[:, 1:], rank - 1, lengths)

    def codelength(self, noise: NoiseModel) -> NDArray[np.float64]:
        """L in bits a message, (N,), with what its ending costs; messages end by EOS or at their limit."""
        probability = noise.probability_of(self.gaps, self.chosen)
        tokens = token_codelength(probability, noise.vocabulary_size, noise.floor)
        whole = np.zeros(len(self.lengths), np.bool_)
        return sum_by_message(tokens, self.lengths) + ending_codelength(whole, self.lengths)

    def walk(self, bound: float) -> float:
        """Sum of log2 |A_t(b)| over the traffic: what is achievable with b on these paths."""
        return float(np.log2(1 + np.count_nonzero(self.gaps <= 2 * bound, axis=1)).sum())

    @property
    def mismatches(self) -> int:
        return int(np.count_nonzero(self.chosen >= 0))

    def detection(self, noise: NoiseModel, alpha: float = ALPHA) -> NDArray[np.float64]:
        """Tokens until the alarm, (STREAMS,), inf where it stayed silent.

        Each stream is the traffic's messages in a random order of their own: one server, one window.
        """
        columns = np.minimum(np.maximum(self.chosen, 0), self.gaps.shape[1] - 1)
        own_gap = np.where(
            self.chosen < self.gaps.shape[1], self.gaps[np.arange(len(self.gaps)), columns], np.inf
        )
        differs = self.chosen >= 0
        inside = differs & (own_gap <= noise.curve.cutoff)
        limits = mismatch_limits(noise.supremum_mismatch_probability(self.gaps), KAPPA, noise.floor)
        alternatives = [noise.mismatch_probability(self.gaps, factor) for factor in INFLATIONS]
        random = np.random.default_rng(0)
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        found = []
        for _ in range(STREAMS):
            order = random.permutation(len(self.lengths))
            rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
            log_e = log_e_process(
                limits[rows], inside[rows], (differs & ~inside)[rows], noise.floor,
                [rate[rows] for rate in alternatives],
            )  # fmt: skip
            crossed = int(first_crossing(log_e, alpha))
            found.append(float(crossed) if crossed else np.inf)
        return np.array(found)
