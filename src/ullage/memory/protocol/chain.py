"""The latency-bound chain: which blocks a step reads, and how the next step hangs on what they hold.

A step reads `width` blocks at once, so that an interpreter's overhead is shared among them; the next step's
blocks are known only when all of these have been read. `docs/formats/memory-protocol.md` has the exact bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ullage.memory.machine.gather import CHAIN_BLOCK_BYTES, Blocks, Gather, Numbers
from ullage.memory.noise.noise import Buffer

if TYPE_CHECKING:
    from ullage.memory.protocol.questions import Chain

WIDTH = 64
"""Blocks of a step: more would save an honest machine little and let a prover fetch more at once."""
_STEPS_AT_ONCE = 4096
_NONCE_BYTES = 12
_NUMBER_BYTES = 8


class ChainLinks:
    """The links of one chain under its own key; each link has 16 bytes, the first is the key itself.

    A key of its own for each step would cost an honest machine a key schedule, and every microsecond is one
    that a prover may spend elsewhere.
    """

    def __init__(self, nonce: bytes, blocks: int, width: int) -> None:
        self._encrypt = AESGCM(nonce).encrypt
        self._zeros = bytes(_NUMBER_BYTES * width)
        self._blocks, self._width = np.uint64(blocks), width

    def numbers(self, link: bytes) -> Numbers:
        """Which blocks the step after `link` reads: AES-128-GCM's keystream, eight bytes a number, the
        least first: any other order costs a processor two microseconds more.

        Of 2^64 values the remainder by at most 2^40 blocks favours none by more than 2^-24.
        """
        stream = self._encrypt(link[:_NONCE_BYTES], self._zeros, b"")
        return (np.frombuffer(stream, "<u8", self._width) % self._blocks).view(np.intp)

    def follow(self, link: bytes, read: Buffer) -> bytes:
        """The next link: AES-128-GMAC over the step's blocks, one after the other."""
        return self._encrypt(link[:_NONCE_BYTES], b"", read)


def walk(asked: Chain, gather: Gather, go_on: Callable[[], None] = lambda: None) -> bytes:
    """The last link of a chain over blocks that `gather` reads. `go_on`, called now and then, may raise."""
    links, link = ChainLinks(asked.nonce, asked.blocks, asked.width), asked.nonce
    read: Blocks = np.empty((asked.width, CHAIN_BLOCK_BYTES), np.uint8)
    flat = read.reshape(-1).data
    for start in range(0, asked.steps, _STEPS_AT_ONCE):
        go_on()
        for _ in range(min(_STEPS_AT_ONCE, asked.steps - start)):
            gather(links.numbers(link), read)
            link = links.follow(link, flat)
    return link
