"""The operands of a unit: int8 entries, which are the bytes of an AES-256-CTR keystream.

A and the transpose of B are one table of M + N rows of K entries, and row i is the K bytes of the keystream
from byte i * K on, so that a verifier can make one row alone. No byte is left out or replaced: every entry of
[-128, 127] is equally likely, and making operands costs the cipher and nothing else.
`docs/formats/work-protocol.md` specifies the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from ullage.work.shape import Shape

SEED_BYTES = 32
_BLOCK = 16
_ZEROS = bytes(1 << 18)
"""Keystream is made in pieces of this size, which stay in the second-level cache."""
_LEAST_ROWS = 8


def left_rows(seed: bytes, shape: Shape, first: int, count: int) -> NDArray[np.int8]:
    """Rows first … first + count of A, (count, K)."""
    if first < 0 or count < 0 or first + count > shape.rows:
        raise ValueError(f"rows {first} to {first + count} are not in a table of {shape.rows}")
    return _make_rows(seed, shape.inner, first, count)


def right_columns(seed: bytes, shape: Shape) -> NDArray[np.int8]:
    """The transpose of B, (N, K): row j is column j of B."""
    return _make_rows(seed, shape.inner, shape.rows, shape.columns)


def right_pieces(seed: bytes, shape: Shape) -> Iterator[NDArray[np.int8]]:
    """The same a few columns at a time, each piece (n, K): B never lies in memory as a whole.

    A piece is overwritten by the next one.
    """
    step = max(_LEAST_ROWS, len(_ZEROS) // shape.inner)
    stream = _stream(seed, shape.inner, shape.rows)
    buffer = np.empty((min(step, shape.columns), shape.inner), dtype=np.int8)
    for first in range(0, shape.columns, step):
        piece = buffer[: shape.columns - first]
        _fill(stream, piece.reshape(-1))
        yield piece


def _make_rows(seed: bytes, inner: int, first: int, count: int) -> NDArray[np.int8]:
    out = np.empty((count, inner), dtype=np.int8)
    _fill(_stream(seed, inner, first), out.reshape(-1))
    return out


def _stream(seed: bytes, inner: int, row: int) -> CipherContext:
    """The keystream from the first byte of this row on."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes")
    start = (row * inner // _BLOCK).to_bytes(_BLOCK, "big")  # K is a multiple of 64
    return Cipher(algorithms.AES256(seed), modes.CTR(start)).encryptor()


def _fill(stream: CipherContext, out: NDArray[np.int8]) -> None:
    for top in range(0, len(out), len(_ZEROS)):
        piece = out[top : top + len(_ZEROS)]
        stream.update_into(memoryview(_ZEROS)[: len(piece)], piece.view(np.uint8).data)
