"""The prover's side of activation fingerprints: keep each answer's final hidden states, commit, answer,
open.

States lie in memory until the verifier has asked or room is needed; what was committed to is never changed.
The protocol is `docs/formats/fingerprints.md`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ullage.errors import UsageError
from ullage.fingerprint.commitment import (
    Commitment,
    StateType,
    commit,
    decode_state,
    encode_state,
    leaves_of,
    transcript_digest,
)
from ullage.fingerprint.projection import fingerprint
from ullage.merkle import inclusion_proof
from ullage.model.states import StateCapture
from ullage.server.chooser import TokenChooser
from ullage.server.rows import Row


@dataclass(frozen=True)
class Committed:
    """One answer's commitment under its number in the order of commitments, from 0."""

    number: int
    commitment: Commitment


class StateStore:
    """Committed states, oldest forgotten first once they fill `limit` bytes. For several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._next = 0
        self._lock = threading.Lock()
        self._answers: OrderedDict[bytes, tuple[Committed, list[bytes]]] = OrderedDict()

    def add(self, commitment: Commitment, states: list[bytes]) -> None:
        """A transcript that comes a second time keeps its first commitment."""
        size = sum(map(len, states))
        with self._lock:
            if commitment.transcript in self._answers:
                return
            self._answers[commitment.transcript] = (Committed(self._next, commitment), states)
            self._next += 1
            self._held += size
            while self._held > self._limit and self._answers:
                _, (_, forgotten) = self._answers.popitem(last=False)
                self._held -= sum(map(len, forgotten))

    def commitments(self, first: int, count: int) -> list[Committed]:
        """Those numbered `first` and up that are still kept, at most `count`."""
        with self._lock:
            found = [kept for kept, _ in self._answers.values() if kept.number >= first]
        return found[:count]

    def answer(self, transcript: bytes, seed: bytes, coordinates: int, step: float) -> bytes:
        """The fingerprint's bytes, K a token. Raises UsageError for an unknown transcript."""
        commitment, states = self._find(transcript)
        decoded = np.stack([decode_state(data, commitment.width, commitment.dtype) for data in states])
        return fingerprint(decoded, seed, transcript, coordinates=coordinates, step=step).tobytes()

    def open(self, transcript: bytes, tokens: Sequence[int]) -> list[tuple[bytes, tuple[bytes, ...]]]:
        """The state of each of these tokens, and its audit path. Raises UsageError."""
        commitment, states = self._find(transcript)
        if not all(0 <= token < commitment.tokens for token in tokens):
            raise UsageError(f"The answer has {commitment.tokens} tokens, and not all that were asked for.")
        leaves = leaves_of(states)
        return [(states[token], inclusion_proof(leaves, token)) for token in tokens]

    def _find(self, transcript: bytes) -> tuple[Commitment, list[bytes]]:
        with self._lock:
            found = self._answers.get(transcript)
        if found is None:
            raise UsageError("There is no such transcript, or its states were forgotten to make room.")
        return found[0].commitment, found[1]


class FingerprintingChooser:
    """Chooses as `inner` does, and keeps the states that the logits came from."""

    def __init__(self, inner: TokenChooser, model: Any, store: StateStore) -> None:
        self._inner = inner
        self._capture = StateCapture(model)
        self._dtype: StateType = "bfloat16" if model.dtype == torch.bfloat16 else "float32"
        self._store = store
        self._states: dict[Row, list[bytes]] = {}
        self._width = int(model.get_output_embeddings().weight.shape[1])

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> Sequence[int]:
        """As `TokenChooser.choose`; the model's head was called just before."""
        states: NDArray[np.float32] = self._capture.take()
        for row, state in zip(rows, states, strict=True):
            self._states.setdefault(row, []).append(encode_state(state, self._dtype))
        return self._inner.choose(logits, rows)

    def finished(self, row: Row) -> None:
        """Commit to the states of the tokens that were chosen, the last of them included."""
        states = self._states.pop(row, [])[: len(row.output_ids)]
        if states:
            transcript = transcript_digest(row.seed, row.prompt_ids, row.output_ids)
            self._store.add(commit(transcript, states, self._width, self._dtype), states)
        self._inner.finished(row)
