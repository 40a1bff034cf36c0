"""Whether a run looks drawn at random, or is written: repeats, counts, names, paths of a drawing, lists."""

from __future__ import annotations

import math
import operator
import re
import string
from collections import Counter
from itertools import pairwise
from typing import Final

import numpy as np

from ullage.monitor.natural import total_bits

_ALPHANUMERIC: Final = (string.ascii_letters + string.digits).encode()
_SHARE_OF_DISTINCT: Final = 0.5
_SHARE_OF_STEPS: Final = 0.45
_KEYBOARD: Final = (
    "`1234567890-= qwertyuiop[]\\ asdfghjkl;' zxcvbnm,./ ~!@#$%^&*()_+ QWERTYUIOP{}| ASDFGHJKL:\" ZXCVBNM<>?"
)
_KEYS: Final = frozenset(pair for row in _KEYBOARD.split() for pair in pairwise(row.encode()))
# To a neighbour in the alphabet or on the keyboard, or to the same letter in the other case.
_STEPS: Final = _KEYS | frozenset(
    (before, after)
    for before in range(256)
    for after in {max(before - 1, 0), before, min(before + 1, 255), before ^ 32}
)
_SEPARATORS: Final = re.compile(rb"[-_+/]+")
_LEAST_GROUP: Final = 4
_BITS_OF_ONE_CASE: Final = math.log2(36)
_EVIDENCE: Final = 100.0  # bits; names of machine instructions reach 90
# Commands of SVG's path data, each with its numbers: `M5 1v2h3v-2z`.
_PATH: Final = re.compile(rb"[-0-9]*(?:[MmLlHhVvCcSsQqTtAa][-0-9]+(?:[Zz](?=[-MmLl0-9]|\Z))?)+[Zz]?[Mm]?")


def looks_drawn(run: bytes, symbols: int) -> bool:
    """False for runs of few symbols, of a short period, or of neighbours in the alphabet or on the keyboard.

    `symbols` is the alphabet's size A; n draws have A (1 - (1 - 1/A)^n) distinct symbols on average. Encoded
    text has fewer than random bytes have, so half of that is enough.
    """
    sample = run[:4096]
    expected = symbols * (1 - (1 - 1 / symbols) ** len(sample))
    if len(set(sample)) < _SHARE_OF_DISTINCT * expected:
        return False
    steps = sum(map(_STEPS.__contains__, pairwise(sample)))
    if steps > _SHARE_OF_STEPS * len(sample):
        return False
    return not _is_periodic(sample)


def is_written(run: bytes) -> bool:
    """Whether a word of letters, digits and `+ / - _` is a name as `MSG_AVX2_9_5_2`, or a drawing's path.

    A name has letters of one case and groups of unequal length between its signs. Of 16 letters of base64
    fewer than one in 5,000 are so. Keys in groups, such as serial numbers, have groups of one length.
    """
    if _PATH.fullmatch(run):
        return True
    if run.lower() != run and run.upper() != run:
        return False
    groups = _SEPARATORS.split(run)
    if len(groups) == 1:
        return False
    lengths = {len(group) for group in groups[:-1]}
    if len(lengths) == 1 and min(lengths) >= _LEAST_GROUP:
        return False
    return not _is_drawn_within(b"".join(groups))


def _is_drawn_within(letters: bytes) -> bool:
    """Whether the letters of a name alone, without its signs, are drawn from letters of one case and digits.

    A key that is cut into uneven groups is; words and numbers that make up names are not.
    """
    evidence = total_bits(np.frombuffer(letters, np.uint8)) - _BITS_OF_ONE_CASE * len(letters)
    return evidence >= _EVIDENCE and looks_drawn(letters, 36)


def is_list(run: bytes) -> bool:
    """Whether one sign stands in a run of all signs far more often than drawn signs do, as commas in a list.

    Each of 85 signs is expected n/85 times; one in eight and six at least is once in 1,000 runs of 50.
    """
    counts = Counter(run[:4096].translate(None, _ALPHANUMERIC))
    return bool(counts) and max(counts.values()) >= max(6, len(run[:4096]) / 8)


def mixes_letters(run: bytes, least: float = 0.5) -> bool:
    """Whether a share of `least` or more of a run of all signs are letters and digits, as in base85.

    They are 57 to 62 of its 85 signs, so a share below a half is rare in base85 and usual in patterns and
    formulas. Both cases have to occur. Of 20 letters of ascii85 4 % have less than a half, 1 % less than 0.4.
    """
    letters = len(run) - len(run.translate(None, _ALPHANUMERIC))
    return letters >= least * len(run) and run.lower() != run and run.upper() != run


def _is_periodic(sample: bytes) -> bool:
    """Whether most symbols equal the one a short period before."""
    for period in range(1, min(9, len(sample) // 3)):
        same = sum(map(operator.eq, sample, sample[period:]))
        if same > 0.6 * (len(sample) - period):
            return True
    return False
