"""Where an output has to end, and what is wrong when a record says otherwise.

An output ends with the first token that is EOS (`stop`), that completes a stop string in the text
(`stop`), or that reaches `max_tokens` or the end of the context (`length`), in this order. So the length
of an answer and its finish reason are not the server's to choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ullage.log.record import Record


class Decoder(Protocol):
    """What is needed of a tokenizer."""

    context_length: int
    eos_ids: frozenset[int]

    def decode(self, ids: Sequence[int]) -> str: ...


def finish_reason(
    output_ids: Sequence[int], prompt_length: int, max_tokens: int, stop: Sequence[str], tokenizer: Decoder
) -> str | None:
    """Why an output ends after its last token; None if it has to go on."""
    if output_ids and output_ids[-1] in tokenizer.eos_ids:
        return "stop"
    if output_ids and stop:
        text = tokenizer.decode(output_ids)
        if any(string in text for string in stop):
            return "stop"
    if len(output_ids) >= max_tokens or prompt_length + len(output_ids) >= tokenizer.context_length:
        return "length"
    return None


def check_finish(record: Record, tokenizer: Decoder) -> list[str]:
    """Sentences on what is wrong with the end of a record's output; empty if nothing is.

    Also for outputs that were cut short: they must not go on after an end either.
    """
    problem = _overrun(record, tokenizer) if record.output_ids else None
    if problem is None and record.close is not None and record.close.outcome == "complete":
        problem = _wrong_reason(record, record.close.finish_reason, tokenizer)
    return [f"Record {record.counter} {problem}."] if problem else []


def _reason_after(record: Record, length: int, tokenizer: Decoder) -> str | None:
    parameters = record.open.parameters
    ids = record.output_ids[:length]
    return finish_reason(ids, len(record.open.prompt_ids), parameters.max_tokens, parameters.stop, tokenizer)


def _overrun(record: Record, tokenizer: Decoder) -> str | None:
    last = len(record.output_ids) - 1
    for place, token in enumerate(record.output_ids[:last]):
        if token in tokenizer.eos_ids:
            return f"goes on after the end-of-text token at output token {place}"
    reason = _reason_after(record, last, tokenizer)
    return f"goes on after its end: it was finished ({reason}) before its last token" if reason else None


def _wrong_reason(record: Record, said: str | None, tokenizer: Decoder) -> str | None:
    expected = _reason_after(record, len(record.output_ids), tokenizer)
    if expected is None:
        return "is complete although neither end-of-text, nor a stop string, nor a limit was reached"
    return None if said == expected else f"says that it finished for {said!r} where it was {expected!r}"
