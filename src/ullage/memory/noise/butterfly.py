"""Noise that a seed gives at a known cost: the last labels of a stack of butterfly graphs. No I/O.

`docs/memory.md` has the bound, `docs/formats/memory-protocol.md` the exact bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ullage.errors import UsageError
from ullage.memory.noise.noise import CELL_BYTES, SEED_BYTES, SPOT_BYTES, STRATUM_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIECE_BYTES = 2 * STRATUM_BYTES
"""What is made at once: two strata, and with what it is made from small enough for a core's own cache."""
ROWS = STRATUM_BYTES // SPOT_BYTES
DEPTH = ROWS.bit_length() - 1
"""Layers that a label takes to hang on all others of its graph."""
MAX_LAYERS = 1 << 12
CODING_GAIN = 8
"""By how much a prover that keeps sums of labels instead of labels may rebuild a spot more cheaply: assumed.
The best such code that is known gains 7 at 12 layers, 6 at 13 and less beyond."""
_LAYER_OF_A_SPOT = 2 * ROWS // CODING_GAIN


class ButterflyNoise:
    """A stratum of 512 rows of 8 labels is 8 graphs: column c of its rows. Label r of layer t is
    F(r) + G(r') of the layer before, where r' differs from r in one binary digit, the next in turn. F and G
    are AES-256 under the seed plus its input, each as a tweak shifts it; `+` is the exclusive or.

    Nothing can be had without both labels below it: F and G cannot be turned round, and what lies between
    them and a label belongs to that label alone. Whoever drops a share of a graph's labels, and keeps as many
    others of that graph as he likes instead, has to make the same share of (almost) all of it again when one
    label is asked for. Sums of labels help more than labels do, by `CODING_GAIN` at most as is assumed.
    """

    def __init__(self, seed: bytes, layers: int) -> None:
        if len(seed) != SEED_BYTES or not 1 <= layers <= MAX_LAYERS:
            raise UsageError(f"A seed has {SEED_BYTES} bytes, and there are 1 to {MAX_LAYERS} layers.")
        import numpy as np

        self.layers = layers
        # The key of the tweaks is known to all; it only has to be another, or XTS refuses it.
        other = bytes([seed[0] == 0] * SEED_BYTES)
        self._first, self._second = (
            Cipher(algorithms.AES(seed + other), modes.XTS(number.to_bytes(16, "little"))).encryptor()
            for number in (0, 1)
        )
        # `update_into` wants room for 15 bytes more than it writes.
        buffers = [memoryview(bytearray(PIECE_BYTES + CELL_BYTES)) for _ in range(3)]
        self._sources = [buffer[:PIECE_BYTES] for buffer in buffers]
        self._sinks = [buffer[: PIECE_BYTES + CELL_BYTES - 1] for buffer in buffers]
        self._arrays = [np.frombuffer(source, np.uint64) for source in self._sources]
        # Seen as (…, 2, so many rows), partners of a layer are each other's neighbours in the middle.
        shapes = [(-1, 2, SPOT_BYTES // 8 << digit) for digit in range(DEPTH)]
        self._pairs = [[array.reshape(shape) for shape in shapes] for array in self._arrays[:2]]
        self._partners = [self._arrays[2].reshape(shape)[:, ::-1] for shape in shapes]

    def _make(self, piece: int) -> memoryview:
        """The piece of this number; valid until the next call."""
        import numpy as np

        count = PIECE_BYTES // CELL_BYTES
        now, then = 0, 1
        labels = self._arrays[now].view(">u8").reshape(count, 2)
        labels[:, 0], labels[:, 1] = 0, np.arange(piece * count, (piece + 1) * count)
        other = self._arrays[2]
        for layer in range(self.layers):
            before, after = self._arrays[now], self._arrays[then]
            self._second.update_into(self._sources[now], self._sinks[2])
            np.bitwise_xor(other, before, out=other)
            self._first.update_into(self._sources[now], self._sinks[then])
            np.bitwise_xor(after, before, out=after)
            pairs, digit = self._pairs[then], layer % DEPTH
            np.bitwise_xor(pairs[digit], self._partners[digit], out=pairs[digit])
            now, then = then, now
        return self._sources[now]

    def write(self, offset: int, target: memoryview) -> None:
        """Write the noise that belongs at `offset` of the region into `target`; both multiples of 16.

        One thread at a time: every worker has a noise of its own.
        """
        if offset % CELL_BYTES or len(target) % CELL_BYTES:
            raise ValueError("labels are 16 bytes")
        end = offset + len(target)
        for piece in range(offset // PIECE_BYTES, -(-end // PIECE_BYTES)):
            start = piece * PIECE_BYTES
            first, last = max(offset, start), min(end, start + PIECE_BYTES)
            target[first - offset : last - offset] = self._make(piece)[first - start : last - start]

    def read(self, offset: int, size: int) -> memoryview:
        """The same in fresh memory."""
        found = memoryview(bytearray(size))
        self.write(offset, found)
        return found

    def gather(self, numbers: NDArray[np.intp], out: NDArray[np.uint8]) -> None:
        """The scattered blocks of these numbers, as large as the rows of `out`, whole ones of which make a
        piece. Each piece that they lie in is made once."""
        import numpy as np

        blocks = PIECE_BYTES // out.shape[1]
        pieces = numbers // blocks
        for piece in np.unique(pieces).tolist():
            rows = np.flatnonzero(pieces == piece)
            made = np.frombuffer(self._make(piece), np.uint8).reshape(blocks, -1)
            out[rows] = made[numbers[rows] % blocks]


def cost_of_spots(layers: int) -> int:
    """Bytes of AES that a byte of a spot costs on average, at least: two for each label of each layer but the
    last nine, over the gain of a code. 0 where that is no layer."""
    return _LAYER_OF_A_SPOT * max(0, layers - DEPTH)


def cost_of_passes(layers: int) -> int:
    """Bytes of AES that a missing byte costs where everything is asked for: graphs are made whole."""
    return 2 * layers


def layers_for_spots(cost: int) -> int:
    """The fewest layers of which a byte of a spot costs so much."""
    return DEPTH + -(-cost // _LAYER_OF_A_SPOT)


def layers_for_passes(cost: int) -> int:
    """The fewest layers of which a byte costs so much."""
    return -(-cost // 2)
