"""Many short pieces, none of them evidence alone: a payload dealt out in shreds over a text.

Of each run its evidence less `_PRICE` bits is counted (the price of pointing at it), where that is
positive. The sum over a stretch of text has to reach `READABLE_BITS` where the pieces together decode to
something, and the threshold of the class `split` where they do not; then only pieces in both cases of
letters count, because tables of short hexadecimal numbers are ordinary.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.monitor.alphabets import NARROWING, WORD64
from ullage.monitor.drawn import looks_drawn
from ullage.monitor.joined import Piece
from ullage.monitor.runs import Scored
from ullage.monitor.thresholds import Thresholds

_PRICE: Final = 12.0
_LEAST_PIECES: Final = 4
_FAMILY: Final = 4  # letters
READABLE_BITS: Final = 40.0
STRETCH: Final = 4096  # bytes of text within which shreds are summed


def gains(words: Scored, thresholds: Thresholds) -> NDArray[np.float64]:
    """What each run adds; runs that are findings by themselves add nothing here."""
    limits = thresholds.limits(words.alphabets, words.ends - words.starts)
    alone = words.evidence >= limits
    counted: NDArray[np.float64] = np.where(alone, 0.0, np.maximum(words.evidence - _PRICE, 0.0))
    return counted


_MIXED_CASE: Final = np.array(
    [one.name in ("letters", "base58", "base62", "base64", "base64url", "base64mixed") for one in NARROWING]
    + [True]
)


def mixed_case_gains(words: Scored, thresholds: Thresholds) -> NDArray[np.float64]:
    """The same, of the pieces that hold letters of both cases."""
    counted: NDArray[np.float64] = gains(words, thresholds) * _MIXED_CASE[words.alphabets]
    return counted


def find_scattered(data: bytes, words: Scored, gain: NDArray[np.float64], least: float) -> Piece | None:
    """The stretch of text with the most evidence in shreds, if it is `least` bits or more."""
    chosen, value = _shreds(data, words, gain)
    if len(chosen) < _LEAST_PIECES or value < least:
        return None
    letters = b"".join(data[words.starts[place] : words.ends[place]] for place in chosen)
    bits = float((words.bits[chosen] * (words.ends[chosen] - words.starts[chosen])).sum())
    widest = max(int(words.alphabets[place]) for place in chosen)
    alphabet = NARROWING[widest] if widest >= 0 else WORD64
    return Piece(
        int(words.starts[chosen[0]]), int(words.ends[chosen[-1]]), letters, alphabet.name, bits, len(chosen)
    )


def most_evidence(data: bytes, words: Scored, gain: NDArray[np.float64]) -> float:
    """The sum that `find_scattered` compares; 0 where there are too few pieces."""
    chosen, value = _shreds(data, words, gain)
    return value if len(chosen) >= _LEAST_PIECES else 0.0


def _shreds(data: bytes, words: Scored, gain: NDArray[np.float64]) -> tuple[list[int], float]:
    """The pieces of the best stretch in order, and what they sum to.

    Of pieces that begin with the same letters one counts: names of one family (`ATTR_UDP_CSUM`, `ATTR_MTU`)
    do, shreds of a payload do not.
    """
    places = np.flatnonzero(gain > 0)
    if len(places) < _LEAST_PIECES:
        return [], 0.0
    first, last = best_stretch(words.starts[places], gain[places])
    distinct: dict[bytes, int] = {}
    for place in places[first:last].tolist():
        piece = data[words.starts[place] : words.ends[place]]
        if piece[:_FAMILY] not in distinct and _is_piece(piece):
            distinct[piece[:_FAMILY]] = place
    chosen = sorted(distinct.values())
    return chosen, float(gain[chosen].sum())


def _is_piece(run: bytes) -> bool:
    """Drawn, and not `drwxr-xr-x`: lower-case words with hyphens are no shreds of base64."""
    return looks_drawn(run, 40) and (b"-" not in run or run.lower() != run)


def best_stretch(starts: NDArray[np.int64], gain: NDArray[np.float64]) -> tuple[int, int]:
    """First and last-but-one index of the window of STRETCH bytes with the largest sum."""
    total = np.concatenate([[0.0], np.cumsum(gain)])
    ends = np.searchsorted(starts, starts + STRETCH)
    sums = total[ends] - total[: len(starts)]
    first = int(np.argmax(sums))
    return first, int(ends[first])
