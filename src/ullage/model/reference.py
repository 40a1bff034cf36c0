"""The declared model as the verifier runs it: teacher-forced logits of whole transcripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ullage.errors import UsageError
from ullage.model.batching import batches
from ullage.model.forward import logits_at
from ullage.model.identity import ModelIdentity, identify
from ullage.model.loading import Precision, load_causal_lm
from ullage.model.stack import stack_digest
from ullage.model.tokenizer import ModelTokenizer

# float32 logits in one block: 1 GiB. Longer outputs of a wide vocabulary come in several blocks.
_BLOCK_LOGITS = 1 << 28


@dataclass(frozen=True)
class Rows:
    """`count` consecutive rows of a block: steps `first_step` … of sequence number `sequence`."""

    sequence: int
    first_step: int
    count: int


@dataclass(frozen=True)
class LogitsBlock:
    """Logits `(N, V)` float32 of the sequences named in `rows`, one after the other."""

    rows: tuple[Rows, ...]
    logits: NDArray[np.float32]


class Reference:
    """A model with its identity, tokenizer and the digest of the stack it runs on."""

    def __init__(self, model: Any, tokenizer: ModelTokenizer, identity: ModelIdentity, dtype: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.identity = identity
        self.dtype = dtype
        self.vocabulary_size = tokenizer.vocabulary_size
        self.context_length = tokenizer.context_length
        self.stack_digest = stack_digest(dtype)

    @classmethod
    def load(cls, folder: Path, dtype: Precision = "float32") -> Reference:
        """Hash and load `folder`. Raises UsageError when it is not a usable model."""
        return cls(load_causal_lm(folder, dtype), ModelTokenizer.load(folder), identify(folder), dtype)

    def logits(
        self, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int]
    ) -> list[NDArray[np.float32]]:
        """For each sequence (prompt and output) the logits `(T, V)` that its T output tokens came from.

        Row t is the model's output at index `prompt_length - 1 + t`. Raises UsageError for a token outside
        the vocabulary, a sequence beyond the context, or a prompt without tokens.
        """
        parts: list[list[NDArray[np.float32]]] = [[] for _ in sequences]
        for block in self.iter_logits(sequences, prompt_lengths):
            start = 0
            for rows in block.rows:
                parts[rows.sequence].append(block.logits[start : start + rows.count])
                start += rows.count
        empty = np.empty((0, self.vocabulary_size), np.float32)
        return [found[0] if len(found) == 1 else np.concatenate([empty, *found]) for found in parts]

    def iter_logits(
        self, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int]
    ) -> Iterator[LogitsBlock]:
        """The same logits in blocks of about a thousand tokens, as they are computed.

        Sequences come in order of length, so that a batch pads little; padding stands on the right, where
        a causal model cannot see it. Raises UsageError as `logits` does, before anything is computed.
        """
        self._check(sequences, prompt_lengths)
        return self._blocks(sequences, prompt_lengths)

    def _blocks(
        self, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int]
    ) -> Iterator[LogitsBlock]:
        limit = max(1, _BLOCK_LOGITS // self.vocabulary_size)
        for members in batches([len(sequence) for sequence in sequences]):
            rows = [
                Rows(member, 0, len(sequences[member]) - prompt_lengths[member])
                for member in members
                if len(sequences[member]) > prompt_lengths[member]
            ]
            for chosen in _split(rows, limit):
                yield LogitsBlock(chosen, self._forward(sequences, prompt_lengths, chosen))

    @torch.inference_mode()
    def _forward(
        self, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int], chosen: tuple[Rows, ...]
    ) -> NDArray[np.float32]:
        width = max(len(sequences[rows.sequence]) for rows in chosen) - 1  # nothing follows the last token
        ids = torch.zeros((len(chosen), width), dtype=torch.long)
        for row, rows in enumerate(chosen):
            fed = sequences[rows.sequence][:-1]
            ids[row, : len(fed)] = torch.as_tensor(fed)
        row_of = np.repeat(np.arange(len(chosen)), [rows.count for rows in chosen])
        starts = [prompt_lengths[rows.sequence] - 1 + rows.first_step for rows in chosen]
        positions = np.concatenate(
            [np.arange(start, start + rows.count) for start, rows in zip(starts, chosen, strict=True)]
        )
        logits = logits_at(
            self.model, ids, torch.from_numpy(row_of), torch.from_numpy(positions), use_cache=False
        )
        found: NDArray[np.float32] = logits.numpy()
        return found

    def _check(self, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int]) -> None:
        if len(sequences) != len(prompt_lengths):
            raise UsageError(f"{len(sequences)} sequences came with {len(prompt_lengths)} prompt lengths.")
        for number, (sequence, prompt_length) in enumerate(zip(sequences, prompt_lengths, strict=True)):
            if not 1 <= prompt_length <= len(sequence):
                raise UsageError(
                    f"Sequence {number} has {len(sequence)} tokens and a prompt of {prompt_length}; "
                    "a prompt has at least one token and is part of the sequence."
                )
            if len(sequence) > self.context_length:
                raise UsageError(
                    f"Sequence {number} has {len(sequence)} tokens; the model's context holds "
                    f"{self.context_length}."
                )
            if min(sequence) < 0 or max(sequence) >= self.vocabulary_size:
                wrong = next(token for token in sequence if not 0 <= token < self.vocabulary_size)
                raise UsageError(
                    f"Sequence {number} holds token {wrong}, which is outside the vocabulary of "
                    f"{self.vocabulary_size}."
                )


def _split(rows: list[Rows], limit: int) -> Iterator[tuple[Rows, ...]]:
    """Cut a batch's rows into blocks of at most `limit` rows, usually one."""
    block: list[Rows] = []
    room = limit
    for whole in rows:
        first, left = whole.first_step, whole.count
        while left:
            taken = min(left, room)
            block.append(Rows(whole.sequence, first, taken))
            first, left, room = first + taken, left - taken, room - taken
            if room == 0:
                yield tuple(block)
                block, room = [], limit
    if block:
        yield tuple(block)
