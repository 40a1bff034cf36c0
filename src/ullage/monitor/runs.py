"""Stretches of text that look drawn from an alphabet and not written: candidates, with their evidence in
bits.

All arithmetic is over whole arrays; only what passes its threshold becomes a Python object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.monitor.alphabets import ASCII85_BITS, GRAPH, HEX, NARROWING, WORD64, Alphabet
from ullage.monitor.natural import UNITS_PER_BIT, Bytes
from ullage.monitor.thresholds import Thresholds

Offsets = NDArray[np.int64]
_LEAST: Final = 6  # shorter runs are no evidence, not even together with others
_DASHES: Final = frozenset(b"-_")


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes `start` … `end`-1, `evidence` = C - n log2 A in bits (`ullage.monitor.natural`)."""

    start: int
    end: int
    alphabet: str
    bits: float  # a symbol
    evidence: float

    @property
    def length(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Scored:
    """All runs of one family, in order: arrays of equal length N."""

    starts: Offsets
    ends: Offsets
    alphabets: NDArray[np.int64]  # index into NARROWING, or -1
    bits: NDArray[np.float64]
    evidence: NDArray[np.float64]


def find_runs(mask: NDArray[np.bool_], least: int) -> tuple[Offsets, Offsets]:
    """Starts and ends of the maximal stretches of True that have `least` or more."""
    if not len(mask):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    edges = (mask[1:] != mask[:-1]).nonzero()[0] + 1
    at_start, at_end = bool(mask[0]), bool(mask[-1])
    if at_start or at_end:
        edges = np.concatenate([[0] * at_start, edges, [len(mask)] * at_end]).astype(np.int64)
    starts, ends = edges[0::2], edges[1::2]
    kept = ends - starts >= least
    return starts[kept], ends[kept]


def members(data: Bytes, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which bytes belong to a set, given as 256 flags. A table of bytes is quicker than an index here."""
    return np.frombuffer(data.tobytes().translate(mask.tobytes()), np.bool_)


def _costs(total: NDArray[np.int32], starts: Offsets, ends: Offsets) -> NDArray[np.float64]:
    return (total[ends] - total[starts]).astype(np.float64) / UNITS_PER_BIT


_NARROW_MASKS: Final = np.zeros((256,), np.uint16)
for _place, _alphabet in enumerate(NARROWING):
    _NARROW_MASKS[_alphabet.mask()] |= 1 << _place
_NARROW_LOW: Final = (_NARROW_MASKS & 255).astype(np.uint8).tobytes()
_NARROW_HIGH: Final = (_NARROW_MASKS >> 8).astype(np.uint8).tobytes()
_BITS: Final = np.array([one.bits for one in NARROWING])
_GRAPH_MASK: Final = GRAPH.mask()
_HEX_MASK: Final = HEX.mask()
_WORD_MASK: Final = WORD64.mask()


def _attributed(data: Bytes, total: NDArray[np.int32], starts: Offsets, ends: Offsets) -> Scored:
    """Attribute each run to the narrowest alphabet that holds it."""
    if not len(starts):
        empty = np.empty(0, np.float64)
        return Scored(starts, ends, starts, empty, empty)
    text = data.tobytes()
    flags = np.empty(len(data), "<u2")
    halves = flags.view(np.uint8)
    halves[0::2] = np.frombuffer(text.translate(_NARROW_LOW), np.uint8)
    halves[1::2] = np.frombuffer(text.translate(_NARROW_HIGH), np.uint8)
    # reduceat wants starts alone: pairs (start, end) with the gaps thrown away.
    pairs = np.empty(2 * len(starts), np.intp)
    pairs[0::2], pairs[1::2] = starts, ends
    at_end = int(ends[-1]) == len(data)
    pairs[-1] -= at_end
    common = np.bitwise_and.reduceat(flags, pairs)[0::2]
    if at_end:  # its end was clipped by one byte
        common[-1] &= flags[-1]
    lowest = common.astype(np.int64) & -common.astype(np.int64)
    which = np.where(lowest > 0, np.log2(np.maximum(lowest, 1)).astype(np.int64), -1)
    bits = np.where(which >= 0, _BITS[which], WORD64.bits)
    evidence = _costs(total, starts, ends) - bits * (ends - starts)
    return Scored(starts, ends, which, bits, evidence)


def word_runs(data: Bytes, total: NDArray[np.int32]) -> Scored:
    """Runs of letters, digits and `+ / - _`: hex, base32, base58, base62, base64 and their kin."""
    starts, ends = find_runs(members(data, _WORD_MASK), _LEAST)
    return _attributed(data, total, starts, ends)


def hex_runs(data: Bytes, total: NDArray[np.int32]) -> Scored:
    """Runs of hexadecimal digits wherever they stand, inside longer words too."""
    starts, ends = find_runs(members(data, _HEX_MASK), 12)
    return _attributed(data, total, starts, ends)


def graph_runs(data: Bytes, total: NDArray[np.int32]) -> Scored:
    """Runs of anything that is not blank, as ascii85 and z85 are written."""
    starts, ends = find_runs(members(data, _GRAPH_MASK), 14)
    bits = np.full(len(starts), ASCII85_BITS)
    which = np.full(len(starts), -1, np.int64)
    return Scored(starts, ends, which, bits, _costs(total, starts, ends) - bits * (ends - starts))


def passing(found: Scored, thresholds: Thresholds, name: str | None = None) -> list[Run]:
    """The runs whose evidence reaches the threshold of their alphabet and length."""
    if not len(found.starts):
        return []
    limits = thresholds.limits(found.alphabets, found.ends - found.starts, name)
    kept = np.flatnonzero(found.evidence >= limits)
    return [_run(found, int(place), name) for place in kept]


def _run(found: Scored, place: int, name: str | None) -> Run:
    which = int(found.alphabets[place])
    alphabet: Alphabet = NARROWING[which] if which >= 0 else (GRAPH if name else WORD64)
    return Run(
        int(found.starts[place]),
        int(found.ends[place]),
        alphabet.name,
        float(found.bits[place]),
        float(found.evidence[place]),
    )
