"""What the tap asks of a tokenizer.

The tap is handed one by its caller, so that it need not know where models come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Protocol


class StreamDecoder(Protocol):
    """Text of a token sequence that arrives bit by bit.

    The concatenation of every `extend` and the final `finish` is the text of the sequence.
    """

    def extend(self, ids: Sequence[int]) -> str:
        """The text that these tokens complete, possibly none."""

    def finish(self) -> str:
        """What was held back; an unfinished character becomes U+FFFD. Called once, at the end."""


class Tokenizer(Protocol):
    """The declared model's tokenizer and the three limits that come with it."""

    @property
    def vocabulary_size(self) -> int:
        """Width of the model's logits: every token id is below it."""

    @property
    def context_length(self) -> int:
        """Tokens of prompt and output together."""

    @property
    def eos_ids(self) -> Set[int]:
        """The ids that end an output."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without any template."""

    def encode_bare(self, text: str) -> list[int]:
        """Token ids of a text that goes on from another: nothing is put before it."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; special tokens are left out."""

    def spell(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens written out."""

    def stream_decoder(self) -> StreamDecoder:
        """A decoder for one output."""

    def render_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation under the model's template. Raises UllageError without one."""
