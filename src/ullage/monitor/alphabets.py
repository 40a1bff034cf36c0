"""The alphabets that payloads are written in, and how many bits a symbol of each can carry."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_DIGITS = string.digits
_UPPER = string.ascii_uppercase
_LOWER = string.ascii_lowercase
_BASE58 = "".join(sign for sign in _DIGITS + _UPPER + _LOWER if sign not in "0OIl")
_GRAPH = "".join(chr(code) for code in range(33, 127))


@dataclass(frozen=True)
class Alphabet:
    """A set of ASCII characters; `bits` a symbol if drawn uniformly."""

    name: str
    symbols: str

    @property
    def bits(self) -> float:
        return math.log2(len(self.symbols))

    def mask(self) -> NDArray[np.bool_]:
        """Which of the 256 bytes belong to it."""
        found = np.zeros(256, np.bool_)
        found[list(self.symbols.encode())] = True
        return found


# From narrow to wide: a run is attributed to the first that holds all of it.
NARROWING: Final = (
    Alphabet("decimal", _DIGITS),
    Alphabet("hex", _DIGITS + "abcdef"),
    Alphabet("hex", _DIGITS + "ABCDEF"),
    Alphabet("lower", _LOWER),
    Alphabet("upper", _UPPER),
    Alphabet("base32", _UPPER + "234567"),
    Alphabet("base32", _LOWER + "234567"),
    Alphabet("base36", _DIGITS + _LOWER),
    Alphabet("base36", _DIGITS + _UPPER),
    Alphabet("letters", _UPPER + _LOWER),
    Alphabet("base58", _BASE58),
    Alphabet("base62", _DIGITS + _UPPER + _LOWER),
    Alphabet("base64", _DIGITS + _UPPER + _LOWER + "+/"),
    Alphabet("base64url", _DIGITS + _UPPER + _LOWER + "-_"),
    Alphabet("base64mixed", _DIGITS + _UPPER + _LOWER + "+/-_"),
)
WORD64: Final = NARROWING[-1]  # every run of the family is found with this one
HEX: Final = Alphabet("hex", _DIGITS + "abcdefABCDEF")
GRAPH: Final = Alphabet("ascii85", _GRAPH)  # ascii85, z85, base91: all that is not blank
ASCII85_BITS: Final = math.log2(85)

GROUPS: Final = "base85-groups"  # runs of all signs that are whole groups of five letters of base85
CLASS_NAMES: Final = (*dict.fromkeys(one.name for one in NARROWING), GRAPH.name, GROUPS, "split")
LENGTH_EDGES: Final = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 160, 320)
