"""The filtered set of each row, found without sorting the vocabulary.

Exact: the sets equal those of `filters.keep_mask`. Top-k gets a lower bound for the k-th value from the
maxima of groups of logits and looks only into groups that reach it. Top-p alone drops at once the tokens
that together cannot exceed 1 - p, and sorts the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.sampling.filters import keep_mask, scale, top_p_mask
from ullage.sampling.logits import row_maxima
from ullage.sampling.parameters import SamplingParameters

_GROUP: Final = 64
# Sums of V float64 numbers in different orders differ by less than V * 2^-52 of their total; 10^-9 is
# more than enough for any vocabulary, and a cut that close is decided by the definition itself.
_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Support:
    """The filtered sets of B rows, padded to the largest.

    `ids` (B, K) ascending token ids in each row, then zeros; `scaled` (B, K) z = logits/T, -inf for the
    padding and for what the filters removed. Without filters `ids` has shape (1, V).
    """

    ids: NDArray[np.int64]
    scaled: NDArray[np.float64]


def find_support(logits: NDArray[np.float32], first_row: int, parameters: SamplingParameters) -> Support:
    """The filtered sets of a block of rows (B, V); `first_row` is its first row's number in messages.

    Raises FaultError for a row with NaN, +inf or nothing finite.
    """
    vocabulary_size = logits.shape[1]
    if parameters.limits_top_k(vocabulary_size):
        sets = [_top_k_ids(row, parameters.top_k, first_row + place) for place, row in enumerate(logits)]
        support = _padded(logits, sets, parameters.temperature)
        if parameters.top_p < 1:
            support.scaled[~top_p_mask(support.scaled, parameters.top_p)] = -np.inf
        return support
    maxima = row_maxima(logits, first_row)
    if parameters.top_p < 1:
        return _top_p_support(logits, maxima, parameters)
    ids = np.arange(vocabulary_size, dtype=np.int64)[None]
    return Support(ids, scale(logits, parameters.temperature))


def _padded(logits: NDArray[np.float32], sets: list[NDArray[np.int64]], temperature: float) -> Support:
    counts = np.array([len(ids) for ids in sets])
    valid = np.arange(counts.max()) < counts[:, None]
    ids = np.zeros(valid.shape, np.int64)
    ids[valid] = np.concatenate(sets)
    values = np.take_along_axis(logits, ids, axis=1)
    return Support(ids, np.where(valid, scale(values, temperature), -np.inf))


def _top_k_ids(row: NDArray[np.float32], top_k: int, number: int) -> NDArray[np.int64]:
    """Ids, ascending, of the tokens that fewer than k others strictly exceed; `row` has shape (V,), k < V."""
    columns = len(row) // _GROUP
    if columns < 2 * top_k:
        row_maxima(row[None], number)
        return np.flatnonzero(row >= np.partition(row, -top_k)[-top_k])
    grid = row[: columns * _GROUP].reshape(_GROUP, columns)
    rest = row[columns * _GROUP :]
    tops = np.concatenate((grid.max(axis=0), rest))
    row_maxima(tops[None], number)
    # k groups (those of the rest hold one logit) have a maximum of at least this, so at least k logits do.
    bound = np.partition(tops, -top_k)[-top_k]
    open_columns = np.flatnonzero(tops[:columns] >= bound)
    reaching = np.flatnonzero(grid[:, open_columns] >= bound)
    lines, places = np.divmod(reaching, len(open_columns))
    ids = lines * columns + open_columns[places]
    ids = np.concatenate((ids, columns * _GROUP + np.flatnonzero(rest >= bound)))
    values = row[ids]
    kept: NDArray[np.int64] = ids[values >= np.partition(values, -top_k)[-top_k]]
    return kept


def _top_p_support(
    logits: NDArray[np.float32], maxima: NDArray[np.float32], parameters: SamplingParameters
) -> Support:
    top_p, temperature = parameters.top_p, parameters.temperature
    scaled = scale(logits, temperature)
    weights = np.exp(scaled - scale(maxima, temperature)[:, None])
    totals = weights.sum(axis=1)
    # Tokens below this weight hold less than 1 - p together, so all of them are dropped.
    floor = (1 - _ROUNDING) * (1 - top_p) * totals / logits.shape[1]
    candidate = weights >= floor[:, None]
    support = _padded(logits, [np.flatnonzero(line) for line in candidate], temperature)

    order = np.argsort(support.scaled, axis=1, kind="stable")
    ascending = np.take_along_axis(support.scaled, order, axis=1)
    cumulative = np.cumsum(np.exp(ascending - ascending[:, -1:]), axis=1)
    cumulative += totals[:, None] - cumulative[:, -1:]  # what was dropped at once comes first
    cut = ((1 - top_p) * totals)[:, None]
    kept = cumulative > cut
    kept[:, -1] = True
    close = np.abs(cumulative - cut) <= _ROUNDING * totals[:, None]
    close &= ascending > -np.inf
    close[:, -1] = False
    mask = np.empty_like(kept)
    np.put_along_axis(mask, order, kept, axis=1)
    for row in np.flatnonzero(close.any(axis=1)):
        exact = keep_mask(scaled[row : row + 1], parameters)[0]
        mask[row] = exact[support.ids[row]]
    support.scaled[~mask] = -np.inf
    return support
