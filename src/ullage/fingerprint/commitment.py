"""What a prover commits to before it learns the projection, and how single states are opened afterwards.

The commitment is the root of the RFC 6962 tree over one leaf a token: uint32 big-endian place of the token
in the output ‖ its state's bytes. It belongs to a *transcript*, the digest of seed, prompt and output, so
the verifier finds it from the tap's record alone and takes no name from the prover. Bytes:
`docs/formats/fingerprints.md`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ullage.errors import IntegrityError, MalformedError
from ullage.merkle import leaf_hash, tree_root, verify_inclusion

StateType = Literal["float32", "bfloat16"]
STATE_BYTES: Final[dict[str, int]] = {"float32": 4, "bfloat16": 2}
_TRANSCRIPT_DOMAIN: Final = b"ullage.dev/fingerprint-transcript/v1\x00"


@dataclass(frozen=True)
class Commitment:
    """The states of one answer: `tokens` of them, `width` numbers of `dtype` each, under `root`."""

    transcript: bytes
    root: bytes
    tokens: int
    width: int
    dtype: StateType


def transcript_digest(seed: int, prompt_ids: Sequence[int], output_ids: Sequence[int]) -> bytes:
    """SHA-256(domain ‖ seed uint64 ‖ P uint32 ‖ P ids uint32 ‖ T uint32 ‖ T ids uint32), big-endian."""
    parts = [_TRANSCRIPT_DOMAIN, struct.pack(">Q", seed)]
    for ids in (prompt_ids, output_ids):
        parts += [struct.pack(">I", len(ids)), np.asarray(ids, ">u4").tobytes()]
    return hashlib.sha256(b"".join(parts)).digest()


def encode_state(state: NDArray[np.float32], dtype: StateType) -> bytes:
    """A state's bytes, little-endian; of bfloat16 the upper halves of float32 numbers."""
    little = np.ascontiguousarray(state, "<f4")
    return little.tobytes() if dtype == "float32" else (little.view("<u4") >> 16).astype("<u2").tobytes()


def decode_state(data: bytes, width: int, dtype: StateType) -> NDArray[np.float32]:
    """Raises MalformedError for another length, or for a number that is not finite."""
    if len(data) != width * STATE_BYTES[dtype]:
        raise MalformedError(f"A state of {width} numbers in {dtype} does not have {len(data)} bytes.")
    if dtype == "float32":
        state = np.frombuffer(data, "<f4").astype(np.float32)
    else:
        state = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    if not np.all(np.isfinite(state)):
        raise MalformedError("A hidden state holds something that is not a finite number.")
    return state


def leaves_of(states: Sequence[bytes]) -> list[bytes]:
    """The leaf hashes of a transcript's encoded states."""
    return [leaf_hash(token.to_bytes(4, "big") + data) for token, data in enumerate(states)]


def commit(transcript: bytes, states: Sequence[bytes], width: int, dtype: StateType) -> Commitment:
    """The commitment to the encoded states of one answer, `width` numbers each, in their order."""
    return Commitment(transcript, tree_root(leaves_of(states)), len(states), width, dtype)


def check_opening(
    commitment: Commitment, token: int, data: bytes, path: Sequence[bytes]
) -> NDArray[np.float32]:
    """The opened state (H,). Raises IntegrityError if it is not the one that was committed to."""
    state = decode_state(data, commitment.width, commitment.dtype)
    leaf = leaf_hash(token.to_bytes(4, "big") + data)
    if not verify_inclusion(leaf, token, commitment.tokens, path, commitment.root):
        raise IntegrityError(f"The state that was opened for token {token} is not the one committed to.")
    return state
