"""What noise is, that of mode `stream` and of ballast, and the tags over it. No I/O.

`StreamNoise` is the keystream of a key that never leaves the verifier; `butterfly.ButterflyNoise` (mode
`rate-gap`) is made from a seed at a known cost. `docs/formats/memory-protocol.md` has the exact bytes.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ullage.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEED_BYTES = 32
TAG_BYTES = 16
CELL_BYTES = 16
BLOCK_BYTES = 256 * 1024
SPOT_BYTES = 128
"""Small, since memory reads a small block faster and another store does not; two cache lines, since one more
comes along by itself."""
STRATUM_BYTES = 64 * 1024
"""What one spot is drawn from."""
SEGMENT_STRATA = 4096
"""Strata whose spots one tag is about."""
# What a keystream is added to. Made once: fresh memory in every call costs more than the keystream.
_ZEROS = memoryview(bytes(BLOCK_BYTES))

Buffer = bytes | bytearray | memoryview


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


class Noise(Protocol):
    """Bytes for every place of a region, the same each time. One thread at a time."""

    def write(self, offset: int, target: memoryview) -> None:
        """Write what belongs at `offset`, a multiple of 16, into `target`."""

    def read(self, offset: int, size: int) -> memoryview:
        """The same in fresh memory."""

    def gather(self, numbers: NDArray[np.intp], out: NDArray[np.uint8]) -> None:
        """The scattered blocks of these numbers, as large as the rows of `out`."""


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
