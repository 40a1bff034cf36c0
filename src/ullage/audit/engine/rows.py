"""What an engine's answer with `prompt_logprobs` says of the rows that an output came from. No I/O.

An engine gives log-probabilities, which are logits up to a constant a row, and of a row the largest ones and
that of the token that is there. What it left out is at most the smallest of the largest that it gave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pydantic_core
from numpy.typing import NDArray

from ullage.errors import MalformedError
from ullage.sampling.filters import keep_mask, scale
from ullage.sampling.parameters import SamplingParameters

GREEDY_WIDTH: Final = 20
TIES: Final = 8
"""Logits beyond the k-th that are asked for, since all that equal the k-th survive top-k."""
_ROUNDING: Final = 2.0**-20  # of the known probabilities' sum: entropy in nats, at most 16, times 2^-24
_LEAST: Final = -9999.0  # what engines write for minus infinity, which JSON lacks


def width_for(parameters: SamplingParameters, vocabulary: int, usual: int) -> int:
    """How many of a row's largest logits to ask for first; `usual` where no filter says how many count."""
    if parameters.temperature == 0:
        wanted = GREEDY_WIDTH
    elif parameters.limits_top_k(vocabulary):
        wanted = parameters.top_k + TIES
    else:
        wanted = usual
    return min(wanted, vocabulary)


@dataclass(frozen=True)
class PartialRows:
    """Rows of which some logits are known.

    `logits` (T, V) float32 holds the known ones, and for the others an upper limit: the row's smallest
    known one among the largest. `known` (T, V) says which is which.
    """

    logits: NDArray[np.float32]
    known: NDArray[np.bool_]

    def set(self, row: int, token: int, value: float) -> None:
        """Put a logit in the place of its limit."""
        self.logits[row, token] = value
        self.known[row, token] = True

    def without_unknown(self) -> NDArray[np.float32]:
        """The rows with -inf for what is not known: right where a filter removes all of it anyway."""
        return np.where(self.known, self.logits, np.float32(-np.inf))


def kept_by_top_p(rows: PartialRows, parameters: SamplingParameters) -> NDArray[np.bool_] | None:
    """What top-p leaves of each row (T, V), where it does not depend on what is not known; else None.

    Let r be the probability of the unknown tokens together, m their number, q >= the largest of theirs. At
    temperature T they weigh w = sum p_i^(1/T), which is at least 0 and at most r q^(1/T - 1) for T <= 1, and
    m (r/m)^(1/T) for T >= 1 (Jensen). What top-p leaves grows with w. So if nothing of it is unknown, and it
    is the same at both ends, it is what it would be with the whole row.
    """
    temperature = parameters.temperature
    missing = np.count_nonzero(~rows.known, axis=1)  # (T,)
    with np.errstate(divide="ignore"):
        seen = np.where(rows.known, np.exp(rows.logits.astype(np.float64)), 0).sum(axis=1)
        rest = np.log(np.maximum(1 - seen, 0) + _ROUNDING)
        count = np.log(np.maximum(missing, 1))
        limit = rows.logits[np.arange(len(missing)), np.argmin(rows.known, axis=1)].astype(np.float64)
    weight = (
        rest + limit * (1 / temperature - 1) if temperature <= 1 else count + (rest - count) / temperature
    )
    scaled = scale(rows.logits, temperature)
    heavy = np.where(rows.known, scaled, (weight - count)[:, None])
    kept = keep_mask(heavy, parameters)
    same: bool = np.array_equal(kept, keep_mask(np.where(rows.known, scaled, -np.inf), parameters))
    return kept if same and not np.any(kept & ~rows.known) else None


def read_prompt_logprobs(data: bytes, length: int) -> tuple[list[Any], str | None]:
    """The list under `prompt_logprobs` of an answer's one choice, and the engine's fingerprint.

    `length` is the number of prompt tokens. Raises MalformedError.
    """
    try:
        body = pydantic_core.from_json(data)
        choice = body["choices"][0]
        found = choice.get("prompt_logprobs")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise MalformedError("The engine's answer is no completion.") from error
    if not isinstance(found, list) or len(found) != length:
        raise MalformedError(
            "The engine's answer has no prompt_logprobs, one for each token of the prompt, so its "
            "logits cannot be known."
        )
    fingerprint = body.get("system_fingerprint")
    return found, fingerprint if isinstance(fingerprint, str) else None


def partial_rows(entries: list[Any], tokens: list[int], vocabulary: int, width: int) -> PartialRows:
    """The rows of `entries`; row t must hold its `width` largest logits and that of `tokens[t]`.

    Raises MalformedError where it does not.
    """
    logits = np.empty((len(entries), vocabulary), np.float32)
    known = np.zeros((len(entries), vocabulary), np.bool_)
    for row, (entry, token) in enumerate(zip(entries, tokens, strict=True)):
        values = _values(entry, vocabulary)
        if token not in values or len(values) < width:
            raise MalformedError(
                f"The engine gave {len(values)} log-probabilities of a row where {width} were asked for; "
                "start it so that it gives as many (vLLM: --max-logprobs -1)."
            )
        largest = sorted(values.values(), reverse=True)[width - 1]
        logits[row] = largest
        ids = np.fromiter(values.keys(), np.int64, len(values))
        logits[row, ids] = np.fromiter(values.values(), np.float32, len(values))
        known[row, ids] = True
    return PartialRows(logits, known)


def value_of(entry: Any, token: int, vocabulary: int) -> float:
    """The log-probability of one token. Raises MalformedError."""
    values = _values(entry, vocabulary)
    if token not in values:
        raise MalformedError("The engine left out the log-probability of the token that is there.")
    return values[token]


def _values(entry: Any, vocabulary: int) -> dict[int, float]:
    try:
        values = {int(name): float(found["logprob"]) for name, found in entry.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MalformedError("The engine's prompt_logprobs are not {token id: {logprob: number}}.") from error
    for token, value in values.items():
        if not 0 <= token < vocabulary or math.isnan(value) or value > 0:
            raise MalformedError(f"The engine gave token {token} the log-probability {value}.")
        if value <= _LEAST:
            values[token] = -math.inf
    return values
