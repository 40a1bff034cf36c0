"""Greedy decoding: the largest logit, the lowest id among equals; what temperature 0 means everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ullage.sampling.address import NoiseAddress
from ullage.sampling.logits import STREAMED_ELEMENTS, as_claimed, as_logits, for_blocks, row_maxima
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.scores import Scores


class Greedy:
    """Profile `greedy`: no noise, no filter (no filter ever removes the largest logit), any temperature."""

    name = "greedy"
    position_addressed = True

    def choose(
        self, logits: NDArray[np.float32], parameters: SamplingParameters, address: NoiseAddress
    ) -> NDArray[np.int64]:
        """The largest logits' ids (T,); `parameters` and the numbers in `address` are not looked at."""
        del parameters
        return score_rows(as_logits(logits, address), None, entropy=False).reference

    def score(
        self,
        logits: NDArray[np.float32],
        claimed: NDArray[np.int64],
        parameters: SamplingParameters,
        address: NoiseAddress,
        *,
        entropy: bool = False,
    ) -> Scores:
        """See `Scores`; the margin is max - logit[claimed], the entropy 0."""
        del parameters
        given = as_logits(logits, address)
        return score_rows(given, as_claimed(claimed, given), entropy=entropy)


def score_rows(logits: NDArray[np.float32], claimed: NDArray[np.int64] | None, *, entropy: bool) -> Scores:
    """Greedy scores of contiguous (T, V) logits; without `claimed` (T,) only the reference is meaningful."""
    scores = Scores.empty(len(logits))
    if entropy:
        scores.entropy[:] = 0.0

    def work(rows: slice) -> None:
        block = logits[rows]
        maxima = row_maxima(block, rows.start)
        scores.reference[rows] = block.argmax(axis=1)
        if claimed is not None:
            own = block[np.arange(len(block)), claimed[rows]]
            scores.margin[rows] = maxima.astype(np.float64) - own
            rank = np.count_nonzero(block > own[:, None], axis=1)
            scores.rank[rows] = np.where(np.isneginf(own), logits.shape[1], rank)

    for_blocks(logits, work, elements=STREAMED_ELEMENTS)
    return scores
