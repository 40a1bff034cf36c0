"""Prose that reads as prose only once it is turned: letters rotated or mirrored, the text back to front."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.monitor.escapes import Stretch
from ullage.monitor.natural import UNITS_PER_BIT, Bytes, bits_per_byte, total_bits
from ullage.monitor.runs import find_runs

BLOCK: Final = 64
_STRANGE: Final = 4.7  # bits a byte: written text has about 4
_READABLE: Final = 4.4
_GAIN: Final = 0.6  # bits a byte that turning must save
_SAMPLE: Final = 1024
_MOST_SEGMENTS: Final = 2000

_LETTERS: Final = np.zeros(256, np.bool_)
_LETTERS[list(string.ascii_letters.encode())] = True
_PROSE: Final = _LETTERS.copy()
_PROSE[list(b" \n,.'")] = True
_PROSE_TABLE: Final = _PROSE.tobytes()


# Logarithms of the shares of a-z in English, natural, rounded: any usual table finds the same rotation.
_FREQUENCIES: Final = np.array(
    [-2.5, -4.2, -3.6, -3.2, -2.1, -3.8, -3.9, -2.8, -2.7, -6.5, -4.9, -3.2, -3.7, -2.7,
     -2.6, -3.9, -6.9, -2.8, -2.8, -2.4, -3.6, -4.6, -3.7, -6.5, -3.9, -7.2]
)  # fmt: skip

_ROLLED: Final = np.array([np.roll(_FREQUENCIES, -shift) for shift in range(1, 26)])


def _rotation(shift: int) -> bytes:
    lower, upper = string.ascii_lowercase.encode(), string.ascii_uppercase.encode()
    return bytes.maketrans(lower + upper, lower[shift:] + lower[:shift] + upper[shift:] + upper[:shift])


_TURNS: Final = {f"rot{26 - shift}": _rotation(shift) for shift in range(1, 26)} | {
    "atbash": bytes.maketrans(
        string.ascii_letters.encode(),
        (string.ascii_lowercase[::-1] + string.ascii_uppercase[::-1]).encode(),
    )
}
# _rotation(s) undoes a rotation by 26 - s.


def find_shifted(data: bytes, array: Bytes, total: NDArray[np.int32]) -> Iterator[Stretch]:
    """Segments of two blocks or more that cost much as they stand and little when turned."""
    count = len(array) // BLOCK
    if not count:
        if len(array) >= BLOCK // 2:
            yield from _turned(data, array, 0, len(array))
        return
    edges = np.arange(count + 1) * BLOCK
    cost = np.diff(total[edges]) / (UNITS_PER_BIT * BLOCK)
    prose = np.frombuffer(data[: count * BLOCK].translate(_PROSE_TABLE), np.uint8).reshape(count, BLOCK)
    strange = (cost > _STRANGE) & (prose.sum(axis=1, dtype=np.int64) > 0.85 * BLOCK)
    starts, ends = find_runs(strange, 1)
    for first, last in zip(starts[:_MOST_SEGMENTS], ends[:_MOST_SEGMENTS], strict=True):
        begin, end = max(0, int(first) * BLOCK - BLOCK // 2), min(len(data), int(last) * BLOCK + BLOCK // 2)
        yield from _turned(data, array, begin, end)


def _likely_turns(counts: NDArray[np.int64]) -> list[str]:
    """The rotation whose undoing gives letters their usual frequencies, and the mirror, where they come
    nearer to those than the letters as they stand; `counts` of a to z.
    """
    as_it_stands = float(_FREQUENCIES @ counts)
    rotations = _ROLLED @ counts
    best = int(np.argmax(rotations))
    turns = [f"rot{25 - best}"] if rotations[best] > as_it_stands else []
    return [*turns, "atbash"] if _FREQUENCIES[::-1] @ counts > as_it_stands else turns


def _turned(data: bytes, array: Bytes, begin: int, end: int) -> Iterator[Stretch]:
    part = array[begin:end][:_SAMPLE]
    counts = np.bincount(part, minlength=256)
    letters = counts[97:123] + counts[65:91]
    if letters.sum() < 0.6 * len(part) or not 0.05 * len(part) < counts[32] < 0.4 * len(part):
        return
    own = total_bits(part) / len(part)
    costs = {"reversed": total_bits(part, backwards=True) / len(part)}
    for turn in _likely_turns(letters):
        costs[turn] = bits_per_byte(part.tobytes().translate(_TURNS[turn]))
    name = min(costs, key=costs.__getitem__)
    if costs[name] > _READABLE or own - costs[name] < _GAIN:
        return
    whole = data[begin:end]
    payload = whole[::-1] if name == "reversed" else whole.translate(_TURNS[name])
    yield Stretch(name, begin, end, payload)
