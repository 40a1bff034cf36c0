"""The declared model as an engine of the verifier's own runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ullage.audit.bundle.evidence import TokenScores
from ullage.audit.engine.client import EngineClient
from ullage.audit.engine.recompute import recompute_by_engine
from ullage.log.record import Record
from ullage.model.identity import ModelIdentity, identify
from ullage.model.tokenizer import ModelTokenizer
from ullage.sampling.profiles import Profile

DTYPE: Final = "engine"
"""Stands where a precision would: an engine does not say which it computes in."""


class EngineReference:
    """Made by `connected`."""

    dtype = DTYPE

    def __init__(self, client: EngineClient, tokenizer: ModelTokenizer, identity: ModelIdentity) -> None:
        self._client = client
        self.tokenizer = tokenizer
        self.identity = identity
        self.vocabulary_size = tokenizer.vocabulary_size
        self.context_length = tokenizer.context_length

    @property
    def stack_digest(self) -> str:
        """What the engine says it is: no digest that could be compared with another reference's."""
        return f"engine {self._client.fingerprint or 'without a fingerprint'}"

    @property
    def note(self) -> str:
        """What rests on the engine, as a sentence."""
        return (
            f"The logits came from the {self.stack_digest} at {self._client.url}: that it runs the declared "
            "weights, and how exactly, is the verifier's own word."
        )

    def recompute(
        self, profile: Profile, records: Sequence[Record], progress: Callable[[int], None]
    ) -> list[TokenScores]:
        """See `recompute_by_engine`."""
        return recompute_by_engine(self._client, profile, records, progress)


@contextmanager
def connected(url: str, folder: Path) -> Iterator[EngineReference]:
    """The engine at `url` as the reference for the model in `folder`. Raises UsageError."""
    tokenizer = ModelTokenizer.load(folder)
    with EngineClient(url, tokenizer.vocabulary_size) as client:
        yield EngineReference(client, tokenizer, identify(folder))
