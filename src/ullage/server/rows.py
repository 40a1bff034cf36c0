"""One sequence in the batch: what was asked, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ullage.sampling.parameters import SamplingParameters

FinishReason = Literal["stop", "length"]


@dataclass(eq=False)
class Row:
    """What a token chooser sees of a request. `output_ids` holds the tokens chosen so far.

    The logits at hand come from index `len(prompt_ids) - 1 + len(output_ids)` of the sequence.
    """

    request_id: str
    seed: int
    prompt_ids: list[int]
    parameters: SamplingParameters
    output_ids: list[int] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Index in the sequence of the token whose logits the next token is drawn from."""
        return len(self.prompt_ids) - 1 + len(self.output_ids)


@dataclass(frozen=True)
class Limits:
    """When a row ends, and what is told beside its tokens.

    `top_logprobs` is None for no log-probabilities, else how many alternatives a token.
    """

    max_tokens: int
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of the model's own probabilities, before temperature, filters and noise."""

    chosen: float
    top: tuple[tuple[int, float], ...]  # (token id, logprob), most likely first


@dataclass(frozen=True)
class Output:
    """One step of one row: a token, the text it completes, and whether the row ends with it."""

    token_id: int
    text: str
    logprobs: TokenLogprobs | None = None
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Failure:
    """The engine could not go on with this row."""

    message: str
