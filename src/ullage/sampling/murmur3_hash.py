"""32-bit MurmurHash3 of (seed low, seed high, position, token), split into a row's and a token's half.

Algorithm: Austin Appleby's MurmurHash3_x86_32 over four 32-bit words (16 bytes). The engines that use it
hash the 64-bit seed as two words, then the low 32 bits of the position, then the token id.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

C1: Final = np.uint32(0xCC9E2D51)
C2: Final = np.uint32(0x1B873593)
ADDEND: Final = np.uint32(0xE6546B64)
FINAL1: Final = np.uint32(0x85EBCA6B)
FINAL2: Final = np.uint32(0xC2B2AE35)
LENGTH: Final = np.uint32(16)
FIVE: Final = np.uint32(5)


def rotate_left(words: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    """Each 32-bit word rotated left."""
    return (words << np.uint32(bits)) | (words >> np.uint32(32 - bits))


def _scramble(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return rotate_left(words * C1, 15) * C2


def row_states(
    seeds: NDArray[np.uint64], positions: NDArray[np.int64], domain: int = 0
) -> NDArray[np.uint32]:
    """State after seed and position, already rotated for the token's word; shape (T,).

    rotate(a xor b) = rotate(a) xor rotate(b), so the rotation that follows the token's word is applied to
    the row's half here and to the token's half in `token_words`: once a row and once a vocabulary.
    """
    low = np.uint64(0xFFFFFFFF)
    state = np.full(len(seeds), domain, np.uint32)
    for word in (seeds & low, seeds >> np.uint64(32), positions.astype(np.uint64) & low):
        state = rotate_left(state ^ _scramble(word.astype(np.uint32)), 13) * FIVE + ADDEND
    return rotate_left(state, 13)


@lru_cache(maxsize=8)
def token_words(vocabulary_size: int) -> NDArray[np.uint32]:
    """The token's half of the mix for ids 0 … V-1; read-only, shape (V,)."""
    words = rotate_left(_scramble(np.arange(vocabulary_size, dtype=np.uint32)), 13)
    words.setflags(write=False)
    return words


def finish(mixed: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """From row state xor token word to the hash, element by element, in place."""
    mixed *= FIVE
    mixed += ADDEND
    mixed ^= LENGTH
    mixed ^= mixed >> np.uint32(16)
    mixed *= FINAL1
    mixed ^= mixed >> np.uint32(13)
    mixed *= FINAL2
    mixed ^= mixed >> np.uint32(16)
    return mixed
