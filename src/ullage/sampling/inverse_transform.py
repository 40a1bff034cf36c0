"""inverse-transform: one uniform a step, and a walk along the cumulative distribution in token-id order.

Devroye, "Non-Uniform Random Variate Generation" (1986), section III.2. The uniform's source is ours:
numpy's PCG64 bit stream, which numpy keeps stable across versions (NEP 19).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.sampling import greedy
from ullage.sampling.address import NoiseAddress
from ullage.sampling.logits import CACHED_ELEMENTS, as_claimed, as_logits, for_blocks
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.scores import Scores, entropy_bits
from ullage.sampling.sequential import step_integers
from ullage.sampling.support import Support, find_support

_TO_UNIT: Final = 2.0**-53


def draw_words(seed: int) -> Iterator[int]:
    """The 64-bit outputs of PCG64(seed), one a step."""
    stream = np.random.PCG64(seed)
    while True:
        yield int(stream.random_raw())


def uniforms(address: NoiseAddress) -> NDArray[np.float64]:
    """u = (top 52 bits of the step's word + 0.5) / 2^52 for each row, (T,): never 0, never 1, symmetric."""
    words = step_integers(address, draw_words) >> np.uint64(12)
    return (2 * words.astype(np.float64) + 1) * _TO_UNIT


class InverseTransform:
    """Profile `inverse-transform`, version 1.

    The reference is the first token y, in id order, whose cumulative probability within the filtered set
    is above u. **Margin.** Let c(S) = log(sum over S of e^z) - log(sum over the others of e^z), z = logits/T,
    S_y = {v <= y}, l = log(u/(1-u)). Token y is drawn iff c(S_{y-1}) <= l < c(S_y). The margin is T times the
    distance of l from that interval, 0 inside it.

    *Without filters, y is drawn under some change of every raw logit by at most b iff margin <= 2b* (at the
    upper edge, which is open: iff margin < 2b). Proof. A change of at most b moves each z by at most b/T, so
    for any S the sum over S changes by a factor in [e^(-b/T), e^(b/T)], as does the sum over the others, and
    c(S) by at most 2b/T; this is reached by moving all of S one way and all others the other way.
    Only if: drawing y needs c(S_{y-1}) <= l and c(S_y) > l, so an edge must move by its whole distance.
    If, l below the interval: lower all of S_{y-1} and raise all others by s/T, with s going from 0 to b.
    c(S_{y-1}) falls continuously by up to 2b/T; stop when it equals l (margin <= 2b ensures it). Then
    c(S_y) > c(S_{y-1}) = l because e^z_y > 0, so y is drawn. If, l at or above c(S_y): raise S_y and lower
    the others until c(S_y) is just above l and c(S_{y-1}) < c(S_y) still at most l. QED. It is the Gumbel
    case's rule (there margin <= 2b, too: raise the claimed by b, lower the others by b).
    """

    name = "inverse-transform"
    position_addressed = False

    def choose(
        self, logits: NDArray[np.float32], parameters: SamplingParameters, address: NoiseAddress
    ) -> NDArray[np.int64]:
        """The profile's tokens (T,) for logits (T, V). Raises UsageError and FaultError."""
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
        """See `Scores`; rank counts the tokens whose interval is nearer to l than the claimed one's."""
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
        scores = Scores.empty(len(logits))
        drawn = uniforms(address)

        def work(rows: slice) -> None:
            block = logits[rows]
            support = find_support(block, rows.start, parameters)
            own = np.zeros(len(block), np.int64) if claimed is None else claimed[rows]
            scores.fill(
                rows,
                -distances(support, drawn[rows]),
                support.ids,
                own,
                temperature=parameters.temperature,
                vocabulary_size=logits.shape[1],
            )
            if entropy:
                scores.entropy[rows] = entropy_bits(support.scaled)

        for_blocks(logits, work, elements=CACHED_ELEMENTS)
        return scores


def distances(support: Support, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance in log-odds of logit(u), u (B,), from each token's interval, (B, K); inf outside the set."""
    scaled = support.scaled
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    up_to = np.cumsum(weights, axis=1)
    # Summed from the other end: the difference 1 - F would lose what is left of the tail.
    beyond = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]
    lowest = np.full((len(scaled), 1), -np.inf)
    with np.errstate(divide="ignore"):
        edges = np.log(up_to[:, :-1]) - np.log(beyond[:, 1:])
    lower = np.concatenate((lowest, edges), axis=1)
    upper = np.concatenate((edges, -lowest), axis=1)
    target = (np.log(drawn) - np.log1p(-drawn))[:, None]
    # The first token whose upper edge is above the target is drawn, whatever rounding did to the others.
    first = (upper > target).argmax(axis=1)[:, None]
    place = np.arange(scaled.shape[1])
    apart = np.where(place < first, target - upper, np.where(place > first, lower - target, 0.0))
    smallest = np.nextafter(0.0, 1.0)  # an edge exactly at l: not drawn, but any change could draw it
    apart = np.where(place == first, 0.0, np.maximum(apart, smallest))
    return np.asarray(np.where(np.isneginf(scaled), np.inf, apart))
