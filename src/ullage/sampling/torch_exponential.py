"""torch-exponential: token = argmax(p / q) with a row of Exp(1) draws a step from a `torch.Generator`.

The exponential race: -log q is Gumbel noise (vLLM's "V1" runner; the scripts of Token-DiFR). The stream is
that of one device kind and one build of torch; here it is the CPU's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ullage.sampling import greedy
from ullage.sampling.address import NoiseAddress
from ullage.sampling.filters import keep_mask, scale
from ullage.sampling.logits import as_claimed, as_logits, row_maxima
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.scores import Scores, entropy_bits
from ullage.sampling.sequential import replay

if TYPE_CHECKING:
    import torch


def draw_exponentials(seed: int, width: int) -> Iterator[NDArray[np.float32]]:
    """Rows (V,) of float32 Exp(1) draws of a CPU `torch.Generator` with this seed, step after step."""
    import torch

    generator = torch.Generator(device="cpu")
    generator.manual_seed(seed)
    while True:
        row = torch.empty(width, dtype=torch.float32).exponential_(generator=generator)
        yield cast("NDArray[np.float32]", row.numpy())


class TorchExponential:
    """Profile `torch-exponential` on the CPU. p is the float32 softmax of the filtered, tempered logits.

    The reference is argmax(p / q) in float32, as in the engine, lowest id among equals. The margin is
    T * (score of the reference - score of the claimed), score = log p - log q in float64, at least 0.
    """

    name = "torch-exponential"
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
        """See `Scores`. Raises UsageError, MalformedError (ids) and FaultError (logits)."""
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
        import torch

        width = logits.shape[1]
        row_maxima(logits, 0)
        scores = Scores.empty(len(logits))
        for row, draw in replay(address, lambda seed: draw_exponentials(seed, width)):
            line = logits[row : row + 1]
            keep = keep_mask(scale(line, parameters.temperature), parameters)[0]
            p = _softmax(torch.from_numpy(line[0]), keep, parameters.temperature)
            own = None if claimed is None else int(claimed[row])
            _fill(scores, row, p, draw, own, temperature=parameters.temperature)
            if entropy:
                scaled = np.where(keep, scale(line, parameters.temperature), -np.inf)
                scores.entropy[row] = entropy_bits(scaled)[0]
        return scores


def _softmax(logits: torch.Tensor, keep: NDArray[np.bool_], temperature: float) -> NDArray[np.float32]:
    """The engine's float32 probabilities of one row (V,), zero where filtered out."""
    import torch

    scaled = torch.div(logits, temperature).masked_fill(torch.from_numpy(~keep), -torch.inf)
    return cast("NDArray[np.float32]", torch.softmax(scaled, dim=-1, dtype=torch.float32).numpy())


def _fill(
    scores: Scores,
    row: int,
    p: NDArray[np.float32],
    q: NDArray[np.float32],
    claimed: int | None,
    *,
    temperature: float,
) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = p / q
    reference = int(np.nan_to_num(ratio, nan=-1.0, posinf=np.inf).argmax())
    scores.reference[row] = reference
    if claimed is None:
        return
    if p[claimed] == 0:
        scores.margin[row], scores.rank[row] = np.inf, len(p)
        return
    pair = np.array([reference, claimed])
    tiny = np.finfo(np.float32).tiny  # a draw of exactly 0 wins in the engine, by an infinite ratio
    value = np.log(p[pair].astype(np.float64)) - np.log(np.maximum(q[pair], tiny).astype(np.float64))
    scores.margin[row] = max(0.0, temperature * float(value[0] - value[1]))
    scores.rank[row] = np.count_nonzero(ratio > ratio[claimed])
