"""Operands: what the format says, byte by byte, and that rows can be made alone."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.errors import UsageError
from ullage.work.commitment import commit
from ullage.work.kernels import int8
from ullage.work.operands import left_rows, right_columns, right_pieces
from ullage.work.shape import Shape

GOLDEN = Path(__file__).parent / "golden"
SHAPE = Shape(32, 64, 40)
SEED = bytes(range(32))


def slow_row(seed: bytes, inner: int, index: int) -> list[int]:
    """One row as docs/formats/work-protocol.md spells it: blocks of AES-256 on a counter, byte by byte."""
    encryptor = Cipher(algorithms.AES256(seed), modes.ECB()).encryptor()  # noqa: S305 - CTR, spelled out
    blocks = range(index * inner // 16, (index + 1) * inner // 16)
    row = b"".join(encryptor.update(block.to_bytes(16, "big")) for block in blocks)
    return [byte - 256 if byte >= 128 else byte for byte in row]


@settings(max_examples=15, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.sampled_from([64, 4160, 32_832, 131_008]))
def test_rows_are_what_the_format_says(seed: bytes, inner: int) -> None:
    shape = Shape(32, inner, 32)
    left, right = left_rows(seed, shape, 0, 32), right_columns(seed, shape)
    for index in (0, 5, 31):
        assert left[index].tolist() == slow_row(seed, inner, index)
        assert right[index].tolist() == slow_row(seed, inner, 32 + index)
        assert np.array_equal(left_rows(seed, shape, index, 1)[0], left[index])
    assert np.array_equal(np.concatenate([piece.copy() for piece in right_pieces(seed, shape)]), right)


def test_entries_are_uniform_over_all_of_int8() -> None:
    entries = left_rows(SEED, Shape(1024, 4096, 32), 0, 1024)
    counts = np.bincount(entries.reshape(-1).astype(int) + 128, minlength=256)
    expected = entries.size / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert 150 < chi_square < 380  # 255 degrees of freedom, 1e-5 on either side


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 33), (32, 1), (5, -1)])
def test_rows_outside_the_table_are_refused(first: int, count: int) -> None:
    with pytest.raises(ValueError, match="not in a table"):
        left_rows(SEED, SHAPE, first, count)


def test_golden_unit() -> None:
    left, right = left_rows(SEED, SHAPE, 0, 32), right_columns(SEED, SHAPE)
    digest = hashlib.sha256(left.tobytes() + right.tobytes()).hexdigest()
    root = commit(int8(left, right)).root.hex()
    assert (GOLDEN / "unit-32-64-40.txt").read_text() == f"operands {digest}\nroot {root}\n"


@pytest.mark.parametrize(
    "sizes", [(0, 64, 32), (32, 63, 32), (32, 64, 33), (32, 1 << 17, 32), (1 << 15, 64, 32)]
)
def test_impossible_shapes_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="is no size"):
        Shape(*sizes)


@pytest.mark.parametrize("text", ["", "1,2", "a,b,c", "32,64,32,1", "-32,64,32", "32, 64,32"])
def test_impossible_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Shape.parse(text)
