"""Temperature, then top-k, then top-p: the definition, vectorised over rows and read from top to bottom.

The conventions are those of vLLM and Hugging Face transformers. `support.py` finds the same sets without
sorting whole vocabularies and falls back on this file where rounding could decide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ullage.sampling.parameters import SamplingParameters


def scale(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """z = logits / temperature in float64, any shape; the temperature is not 0."""
    return np.divide(logits, temperature, dtype=np.float64)


def keep_mask(scaled: NDArray[np.float64], parameters: SamplingParameters) -> NDArray[np.bool_]:
    """Which tokens of z = logits/T, shape (T, V), survive top-k and then top-p. -inf never survives."""
    keep = scaled > -np.inf
    if parameters.limits_top_k(scaled.shape[1]):
        keep &= top_k_mask(scaled, parameters.top_k)
    if parameters.top_p < 1:
        keep &= top_p_mask(np.where(keep, scaled, -np.inf), parameters.top_p)
    return keep


def top_k_mask(scaled: NDArray[np.float64], top_k: int) -> NDArray[np.bool_]:
    """Tokens that fewer than k others strictly exceed: all ties at the k-th value stay. (T, V)."""
    kth = np.partition(scaled, -top_k, axis=1)[:, -top_k, None]
    return np.asarray(scaled >= kth)


def top_p_mask(scaled: NDArray[np.float64], top_p: float) -> NDArray[np.bool_]:
    """Sort ascending (ties by token id), drop while the cumulative probability is <= 1 - p, keep the last.

    p = 0.7 on (0.5, 0.3, 0.2) keeps two tokens; p = 0 keeps one. -inf entries have probability 0. (T, V).
    """
    order = np.argsort(scaled, axis=1, kind="stable")
    ascending = np.take_along_axis(scaled, order, axis=1)
    cumulative = np.cumsum(np.exp(ascending - ascending[:, -1:]), axis=1)
    kept = cumulative > (1 - top_p) * cumulative[:, -1:]
    kept[:, -1] = True
    mask = np.empty_like(kept)
    np.put_along_axis(mask, order, kept, axis=1)
    return mask
