"""The two kinds of noise that fill a region, and the tags over it. No I/O.

`CellNoise` (mode `rate-gap`) is rebuilt from a seed at a known cost; `StreamNoise` (mode `stream`, and
ballast) is the keystream of a key that never leaves the verifier. `docs/formats/memory-protocol.md` has
the exact bytes.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ullage.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEED_BYTES = 32
TAG_BYTES = 16
CELL_BYTES = 16
BLOCK_BYTES = 256 * 1024
MAX_KAPPA = 1 << 16
SEGMENT_STRATA = 4096
"""Strata whose spots one tag is about."""
# A piece this large stays in a core's second-level cache through all its encryptions.
_PIECE_BYTES = 128 * 1024
# What a keystream is added to. Made once: fresh memory in every call costs more than the keystream.
_ZEROS = memoryview(bytes(BLOCK_BYTES))

Buffer = bytes | bytearray | memoryview


def _counters(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Cells of these numbers before encryption: 128-bit big-endian counters."""
    import numpy as np

    cells = np.zeros((len(numbers), 2), ">u8")
    cells[:, 1] = numbers
    return cells.view(np.uint8).reshape(-1)


@lru_cache(2)
def _tweaks(key: bytes) -> NDArray[np.uint8]:
    """What XTS adds to the cells of a piece before and after encryption: E(0) under `key`, then each twice
    the one before in GF(2^128) (IEEE 1619, section 5.2)."""
    import numpy as np

    first = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(bytes(CELL_BYTES))  # noqa: S305 - one block
    tweak, found = int.from_bytes(first, "little"), bytearray()
    for _ in range(_PIECE_BYTES // CELL_BYTES):
        found += tweak.to_bytes(CELL_BYTES, "little")
        tweak <<= 1
        if tweak >> 128:
            tweak ^= 1 << 128 | 0x87
    return np.frombuffer(bytes(found), np.uint8)


class CellNoise:
    """Cell c is AES-256 under the seed, applied `kappa` times to the counter c.

    Cells are independent and every intermediate value is as large as the result, so keeping less than a
    cell saves nothing: there is no trade of time against memory beyond dropping cells.

    The library's quickest way to AES on many blocks is XTS, twice as quick as ECB where there are wide vector
    units: E(c + T) + T with a tweak T of its own for each place. Applied kappa times the tweaks in between
    cancel, and those at both ends are added here once more, so that they are gone.
    """

    def __init__(self, seed: bytes, kappa: int) -> None:
        if len(seed) != SEED_BYTES or not 1 <= kappa <= MAX_KAPPA:
            raise UsageError(f"A seed has {SEED_BYTES} bytes, and kappa is 1 to {MAX_KAPPA}.")
        self.kappa = kappa
        # Any key will do for tweaks that cancel, if it is not the seed: XTS refuses the same key twice.
        other = bytes([seed[0] == 0] * SEED_BYTES)
        self._encryptor = Cipher(algorithms.AES(seed + other), modes.XTS(bytes(CELL_BYTES))).encryptor()
        self._tweaks = _tweaks(other)
        self._scratch = bytearray(_PIECE_BYTES + CELL_BYTES)

    def write(self, offset: int, target: memoryview) -> None:
        """Write the noise that belongs at `offset` of the region into `target`; both multiples of 16.

        One thread at a time: every worker has a `CellNoise` of its own.
        """
        import numpy as np

        if offset % CELL_BYTES or len(target) % CELL_BYTES:
            raise ValueError("cells are 16 bytes")
        for start in range(0, len(target), _PIECE_BYTES):
            size = min(_PIECE_BYTES, len(target) - start)
            first = (offset + start) // CELL_BYTES
            numbers = np.arange(first, first + size // CELL_BYTES)
            self._encrypt(numbers, np.frombuffer(target[start : start + size], np.uint8))

    def _encrypt(self, numbers: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """The cells of these numbers, at most a piece."""
        import numpy as np

        view, tweaks = memoryview(self._scratch), self._tweaks[: out.size]
        # `update_into` wants room for 15 bytes more than it writes.
        source, sink = view[: out.size], view[: out.size + CELL_BYTES - 1]
        cells = np.frombuffer(source, np.uint8)
        np.bitwise_xor(_counters(numbers), tweaks, out=cells)
        for _ in range(self.kappa):
            self._encryptor.update_into(source, sink)
        np.bitwise_xor(cells, tweaks, out=out)

    def read(self, offset: int, size: int) -> memoryview:
        """The same in fresh memory."""
        found = memoryview(bytearray(size))
        self.write(offset, found)
        return found

    def gather(self, numbers: NDArray[np.intp], out: NDArray[np.uint8]) -> None:
        """The scattered blocks of these numbers, as large as the rows of `out`; a multiple of 16 bytes."""
        import numpy as np

        cells, flat = out.shape[1] // CELL_BYTES, out.reshape(-1)
        wanted = (numbers[:, None] * cells + np.arange(cells)).reshape(-1)
        step = _PIECE_BYTES // CELL_BYTES
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            self._encrypt(some, flat[start * CELL_BYTES : (start + len(some)) * CELL_BYTES])


class StreamNoise:
    """AES-256-CTR keystream: byte i of the region is byte i of the stream."""

    def __init__(self, key: bytes) -> None:
        if len(key) != SEED_BYTES:
            raise UsageError(f"A stream key has {SEED_BYTES} bytes.")
        self._key = key

    def write(self, offset: int, target: memoryview) -> None:
        """Write the keystream from `offset`, a multiple of 16, into `target`."""
        if offset % CELL_BYTES:
            raise ValueError("an offset is a multiple of 16")
        counter = (offset // CELL_BYTES).to_bytes(16, "big")
        encryptor = Cipher(algorithms.AES(self._key), modes.CTR(counter)).encryptor()
        # update_into wants room for 15 bytes more than it writes, which a view's end lacks: the last cell
        # goes by hand.
        end = max(0, len(target) - CELL_BYTES)
        for start in range(0, end, BLOCK_BYTES):
            size = min(BLOCK_BYTES, end - start)
            size -= size % CELL_BYTES
            encryptor.update_into(_ZEROS[:size], target[start : start + size + CELL_BYTES - 1])
        done = end - end % CELL_BYTES
        target[done:] = encryptor.update(_ZEROS[: len(target) - done])

    def read(self, offset: int, size: int) -> memoryview:
        """The same in fresh memory."""
        found = memoryview(bytearray(size))
        self.write(offset, found)
        return found

    def gather(self, numbers: NDArray[np.intp], out: NDArray[np.uint8]) -> None:
        """The scattered blocks of these numbers, as large as the rows of `out`; a multiple of 16 bytes.

        All at once: a cipher a block would cost thirty times as much.
        """
        import numpy as np

        width, size = out.shape
        cells = size // CELL_BYTES
        counters = np.zeros((width * cells, 2), ">u8")
        counters[:, 1] = (numbers[:, None] * cells + np.arange(cells)).reshape(-1)
        cipher = Cipher(algorithms.AES(self._key), modes.ECB()).encryptor()  # noqa: S305 - counter mode, by hand
        out[:] = np.frombuffer(cipher.update(counters.tobytes()), np.uint8).reshape(width, size)


Noise = CellNoise | StreamNoise


class SegmentTag:
    """AES-256-GMAC over one segment of the bytes asked for, fed piece by piece."""

    def __init__(self, key: bytes, round_number: int, segment: int) -> None:
        nonce = round_number.to_bytes(4, "big") + segment.to_bytes(8, "big")
        self._encryptor = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()

    def update(self, data: Buffer) -> None:
        self._encryptor.authenticate_additional_data(data)

    def tag(self) -> bytes:
        self._encryptor.finalize()
        return bytes(self._encryptor.tag)


@dataclass(frozen=True)
class Question:
    """One round: a fresh key for tags over all blocks of a region.

    The blocks, one after the other, are cut into segments of `segment_blocks`; the answer is a tag a segment.
    """

    round_number: int
    key: bytes
    region_blocks: int
    segment_blocks: int

    @property
    def asked_bytes(self) -> int:
        return self.region_blocks * BLOCK_BYTES

    @property
    def segments(self) -> int:
        return -(-self.region_blocks // self.segment_blocks)

    def segment(self, number: int) -> range:
        """Block numbers of one segment, in order."""
        first = number * self.segment_blocks
        return range(first, min(self.region_blocks, first + self.segment_blocks))


def tags_equal(left: Iterable[bytes], right: Iterable[bytes]) -> bool:
    """Constant-time comparison of two answers."""
    return hmac.compare_digest(b"".join(left), b"".join(right))
