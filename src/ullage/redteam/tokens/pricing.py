"""What the verifier makes of a game's traffic: codelength bounds, sizes of admissible sets, the alarm.

Codes and limits are those of an audit with a calibration (`ullage.audit.coding`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bounds.alarm import first_crossing, log_bets, mismatch_limits
from ullage.audit.bounds.codelength import DEFAULT_FLOOR, ending_codelength, sum_by_message, token_codelength
from ullage.audit.bounds.noise_model import NoiseModel
from ullage.audit.bundle.evidence import TokenCodes
from ullage.audit.calibration.fit import KAPPA
from ullage.audit.coding import TokenCoder
from ullage.redteam.tokens.game import Traffic
from ullage.redteam.tokens.near_ties import BOUNDS
from ullage.sampling.candidates import DEFAULT_WIDTH, Candidates

ALPHA = 1e-4
STREAMS = 101

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Priced:
    """Traffic in the verifier's terms, rows of all messages one after the other.

    near: the candidates beside the winner. chosen (T,): -1 the winner, j candidate j, the width another.
    sizes: |A_t(b)| (T,) for each b of BOUNDS. least_bound (T,): the least b that admits the delivered token,
    inf for none. lengths (N,): tokens of each message.
    """

    near: Candidates
    chosen: Integers
    sizes: dict[float, Integers]
    least_bound: Floats
    lengths: Integers

    @classmethod
    def of(cls, traffic: Traffic) -> Priced:
        tokens = np.concatenate([ties.tokens for ties in traffic.ties])
        gaps = np.concatenate([ties.gaps for ties in traffic.ties])
        least = np.concatenate([ties.least_bounds for ties in traffic.ties])
        said = np.concatenate([np.asarray(row.output_ids, np.int64) for row in traffic.messages])
        near = _candidates(tokens[:, 1:], gaps[:, 1:])
        return cls(
            near=near,
            chosen=near.chosen(tokens[:, 0], said),
            sizes={bound: np.count_nonzero(least <= bound, axis=1) for bound in BOUNDS},
            least_bound=np.where(tokens == said[:, None], least, np.inf).min(axis=1),
            lengths=np.array([len(row.output_ids) for row in traffic.messages], np.int64),
        )

    def codes(self, noise: NoiseModel) -> TokenCodes:
        return TokenCoder(noise, self.near.gaps.shape[1]).codes(self.near, self.chosen)

    def codelength(self, noise: NoiseModel) -> Floats:
        """L in bits a message, (N,), with what its ending costs; messages end by EOS or at their limit."""
        return self._by_message(self.codes(noise).codelength)

    def bits_at(self, bound: float, vocabulary_size: int) -> float:
        """L of all messages under the code that is uniform on A_t(b): what a verifier uses who knows that
        honest logits differ by at most b, and nothing else. A bound for every strategy as any codelength is.
        """
        probability = np.where(self.least_bound <= bound, 1 / self.sizes[bound], 0.0)
        return float(self._by_message(token_codelength(probability, vocabulary_size, DEFAULT_FLOOR)).sum())

    def walk(self, bound: float) -> float:
        """Sum of log2 |A_t(b)| over the traffic: what is achievable with b on these paths."""
        return float(np.log2(self.sizes[bound]).sum())

    @property
    def mismatches(self) -> int:
        return int(np.count_nonzero(self.chosen >= 0))

    def log_e(self, noise: NoiseModel, alarm_floor: float, rows: Integers | None = None) -> Floats:
        """ln E of the deviation alarm after each token; `rows` (..., T) puts tokens into other orders."""
        codes = self.codes(noise)
        order = np.arange(len(self.chosen)) if rows is None else rows
        total = np.full(order.shape, -np.inf)
        for log_weight, step in log_bets(
            mismatch_limits(codes.flip[0], KAPPA, alarm_floor),
            (self.chosen >= 0) & ~codes.outside,
            codes.outside,
            alarm_floor,
            list(codes.flip[1:]),
        ):
            np.logaddexp(total, log_weight + np.cumsum(step[order], axis=-1), out=total)
        return total

    def detection(
        self, noise: NoiseModel, alarm_floor: float, streams: int = STREAMS, alpha: float = ALPHA
    ) -> Floats:
        """Tokens until the alarm, (streams,), inf where it stayed silent.

        Each stream is the traffic's messages in a random order of their own: one server, one window. The
        first keeps the order of counters.
        """
        random = np.random.default_rng(0)
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        messages = np.arange(len(self.lengths))
        orders = [messages, *(random.permutation(messages) for _ in range(streams - 1))]
        rows = np.array(
            [np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order]) for order in orders]
        )
        crossed = first_crossing(self.log_e(noise, alarm_floor, rows), alpha)
        return np.where(crossed > 0, crossed, np.inf)

    def _by_message(self, tokens: Floats) -> Floats:
        whole = np.zeros(len(self.lengths), np.bool_)
        return sum_by_message(tokens, self.lengths) + ending_codelength(whole, self.lengths)


def _candidates(tokens: Integers, gaps: Floats) -> Candidates:
    """The nearest tokens inside the filters, as an audit finds them: by gap, DEFAULT_WIDTH of them."""
    order = np.argsort(gaps, axis=1, kind="stable")[:, :DEFAULT_WIDTH]
    gaps = np.take_along_axis(gaps, order, axis=1)
    tokens = np.where(np.isfinite(gaps), np.take_along_axis(tokens, order, axis=1), -1)
    return Candidates(gaps, tokens, np.ones(len(gaps), np.int64))
