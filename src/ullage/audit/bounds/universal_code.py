"""Codes for a window of tokens that need no calibration: mixtures, fixed before anybody looked.

A calibration gives one code (`noise_model`). Without one, a mixture over many does nearly as well: a window
coded with -log2 of the average of J products costs at most log2 J bits more than with the best of them, and
obeys Kraft's inequality like each of them (`docs/proofs/covert-capacity.md`, section 9). Two of these, both
functions of counts alone:

* *gaps*: each token is the reference's own with probability 1 - f(gap), the nearest other with f(gap), f the
  tail of Student's t; a grid of scales, tails and floors. Gaps are rounded down to cells, in the code itself.
* *matches*: it is the reference's own or not, whatever the gap; the Krichevsky–Trofimov mixture over all
  rates ("The performance of universal encoding", IEEE Trans. Inf. Theory 27 (1981)). What is not is coded
  by its rank.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, logsumexp, stdtr

from ullage.errors import UsageError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NEAR_RANKS: Final = 8
"""Ranks 1 … 8 share half of what is left to tokens that are not the reference's own."""
_CELLS_PER_OCTAVE: Final = 16
_LEAST_GAP: Final = -24  # log2 of raw logits; smaller gaps are as good as 0
_LARGEST_GAP: Final = 8
CELL_GAPS: Final[Floats] = np.concatenate(
    [[0.0], 2.0 ** np.arange(_LEAST_GAP, _LARGEST_GAP, 1 / _CELLS_PER_OCTAVE), [np.inf]]
)
"""The gap that stands for each cell: its lower end; the last cell is "no other candidate"."""
OWN, NEAREST, OTHER = 0, 1, 2
"""Outcomes of a token, the second axis of gap counts."""

_SCALES: Final = 2.0 ** np.arange(-18, 3, 0.5)
_DEGREES: Final = (1.2, 2.0, 4.0, 200.0)
_FLOORS: Final = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def gap_cells(gaps: Floats) -> Integers:
    """The cell of each gap, any shape; gaps are >= 0, inf where there is no other candidate."""
    gaps = np.asarray(gaps, dtype=np.float64)
    if np.any(np.isnan(gaps)) or np.any(gaps < 0):
        raise UsageError("A gap is a number of raw logits from 0 on, or infinite.")
    last = len(CELL_GAPS) - 1
    # A finite gap beyond the last edge stays in the last finite cell: rounded down, as all are.
    inside = np.minimum(np.searchsorted(CELL_GAPS[:last], gaps, side="right") - 1, last - 1)
    return np.where(np.isinf(gaps), last, inside)


def gaps_code(tokens: Integers, vocabulary_size: int) -> float:
    """Bits of a window from how many `tokens` (cells, 3) fell into each cell with each outcome."""
    _check(vocabulary_size)
    counts: Floats = np.asarray(tokens, dtype=np.float64)
    if counts.shape != (len(CELL_GAPS), 3) or np.any(counts < 0):
        raise UsageError(f"Counts by gap have {len(CELL_GAPS)} cells and three outcomes.")
    seen = counts.sum(axis=1) > 0
    flips = _flips(CELL_GAPS[seen])
    codes = [_bits(counts[seen], flips, floor, vocabulary_size) for floor in _FLOORS]
    return _mixture(np.concatenate(codes))


def matches_code(tokens: int, near: int, far: int, vocabulary_size: int, *, ranked: bool) -> float:
    """Bits of a window of `tokens`, `near` of them of rank 1 … 8, `far` others that are not the reference's.

    Without ranks (`ranked` false) all that are not the reference's are `far`, and cost the same.
    """
    _check(vocabulary_size)
    if min(tokens, near, far) < 0 or near + far > tokens or (near and not ranked):
        raise UsageError("Counts are not negative, and no more tokens deviate than there are.")
    wrong = near + far
    rates = -(float(betaln(wrong + 0.5, tokens - wrong + 0.5)) - math.log(math.pi)) / math.log(2)
    even = 1 / (vocabulary_size - 1)
    if not ranked:
        return rates - far * math.log2(even)
    places = min(NEAR_RANKS, vocabulary_size - 1)
    return rates - near * math.log2(0.5 * even + 0.5 / places) - far * math.log2(0.5 * even)


def either_code(bits: Floats | list[float]) -> float:
    """Bits of the even mixture of several codes: at most log2 of their number above the least."""
    return _mixture(np.asarray(bits, dtype=np.float64))


def _flips(gaps: Floats) -> Floats:
    """f of each gap (cells,) for each scale and tail: (curves, cells)."""
    with np.errstate(over="ignore"):
        rows = [stdtr(degrees, -gaps / scale) for scale in _SCALES for degrees in _DEGREES]
    return np.array(rows)


def _bits(counts: Floats, flips: Floats, floor: float, vocabulary_size: int) -> Floats:
    """Bits under each curve (curves,), from counts (cells, 3) and flips (curves, cells)."""
    even = floor / vocabulary_size
    own = np.log2((1 - floor) * (1 - flips) + even) @ counts[:, OWN]
    nearest = np.log2((1 - floor) * flips + even) @ counts[:, NEAREST]
    return np.asarray(-(own + nearest + counts[:, OTHER].sum() * math.log2(even)))


def _mixture(bits: Floats) -> float:
    if not len(bits):
        raise UsageError("A mixture has at least one code.")
    return (math.log(len(bits)) - float(logsumexp(-bits * math.log(2)))) / math.log(2)


def _check(vocabulary_size: int) -> None:
    if vocabulary_size < 2:
        raise UsageError("A vocabulary has at least two tokens.")
