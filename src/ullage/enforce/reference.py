"""The declared model under the chunked rule, with what names it: digests of weights, stack and rule."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import rfc8785

from ullage.enforce.chunked import DEFAULT_CHUNK, ChunkedModel
from ullage.model.identity import ModelIdentity, identify
from ullage.model.loading import Precision, load_causal_lm
from ullage.model.stack import stack_digest
from ullage.model.tokenizer import ModelTokenizer

RULE = "chunked/1"


class ChunkedReference:
    """A model that computes chunks. `digest` names numerics and rule: equal digests, equal transcripts.

    `batch` is how many chunks share a pass; 1 unless `find_batch` has shown that more make no difference.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: ModelTokenizer,
        identity: ModelIdentity,
        dtype: str,
        chunk: int = DEFAULT_CHUNK,
    ) -> None:
        self.computer = ChunkedModel(model, tokenizer.context_length, chunk)
        self.tokenizer = tokenizer
        self.identity = identity
        self.dtype = dtype
        self.chunk = chunk
        self.vocabulary_size = tokenizer.vocabulary_size
        self.context_length = self.computer.context_length
        self.digest = reference_digest(dtype, chunk)
        self.batch = 1

    @classmethod
    def load(cls, folder: Path, dtype: Precision = "float32", chunk: int = DEFAULT_CHUNK) -> ChunkedReference:
        """Hash and load `folder`. Raises UsageError when it is not a usable model."""
        model = load_causal_lm(folder, dtype)
        return cls(model, ModelTokenizer.load(folder), identify(folder), dtype, chunk)

    def find_batch(self, limit: int) -> int:
        """Find out, on this machine, how many chunks can share a pass, and use that from now on."""
        self.batch = self.computer.largest_batch(limit, self.vocabulary_size) if limit > 1 else 1
        return self.batch


def reference_digest(dtype: str, chunk: int) -> str:
    """`sha256:` of what must be equal for a transcript to be re-derived bit for bit, besides the weights."""
    described: dict[str, str | int] = {"chunk": chunk, "rule": RULE, "stack": stack_digest(dtype)}
    return "sha256:" + hashlib.sha256(rfc8785.dumps({**described})).hexdigest()
