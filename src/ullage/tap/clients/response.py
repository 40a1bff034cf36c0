"""The bytes that leave, rebuilt from the record: nothing that the upstream wrote is among them.

A response is a function of the record and of the declared model's name: keys have a fixed order, there is
no white space, the text is the tap's own rendering of the token ids, ids and times are the record's.
Shapes follow OpenAI's; the object `ullage` (record counters and issued seeds) is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pydantic_core

from ullage.tap.choices.finish import FinishReason
from ullage.tap.clients.request import Endpoint

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Issued:
    """What a client is told of the record of one choice."""

    counter: int
    seed: int


@dataclass(frozen=True)
class Answer:
    """One finished choice: its text and why it ended, and how many tokens it took."""

    text: str
    finish_reason: FinishReason
    tokens: int


@dataclass(frozen=True)
class Envelope:
    """What all bytes of one response share. `created` is in seconds since 1970."""

    endpoint: Endpoint
    log_id: str
    group: int
    created: int
    model: str
    prompt_tokens: int

    def body(self, answers: Sequence[Answer], issued: Sequence[Issued]) -> bytes:
        """The body of a plain response."""
        choices = [self._choice(index, answer) for index, answer in enumerate(answers)]
        kind = "chat.completion" if self.endpoint == "chat" else "text_completion"
        usage = self.usage(sum(answer.tokens for answer in answers))
        return _json({**self._head(kind), "choices": choices, "usage": usage, "ullage": _records(issued)})

    def usage(self, completion_tokens: int) -> dict[str, object]:
        """Token counts by the tap's own reckoning: the prompt once, however many choices."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        }

    def text_event(self, index: int, text: str, *, first: bool) -> bytes:
        """The event that carries text of one choice; the choice's first also carries the role."""
        return self._event([self._delta(index, text, None, first=first)])

    def finish_event(
        self, index: int, reason: FinishReason, *, first: bool, issued: Sequence[Issued] | None = None
    ) -> bytes:
        """The event that ends one choice; the response's last event carries `issued`."""
        return self._event([self._delta(index, "", reason, first=first)], issued=issued)

    def usage_event(self, completion_tokens: int, issued: Sequence[Issued]) -> bytes:
        """The last event, where the client asked for usage."""
        return self._event([], usage=self.usage(completion_tokens), issued=issued)

    def _event(
        self,
        choices: list[dict[str, object]],
        usage: dict[str, object] | None = None,
        issued: Sequence[Issued] | None = None,
    ) -> bytes:
        kind = "chat.completion.chunk" if self.endpoint == "chat" else "text_completion"
        event = {**self._head(kind), "choices": choices}
        if usage is not None:
            event["usage"] = usage
        if issued is not None:
            event["ullage"] = _records(issued)
        return b"data: " + _json(event) + b"\n\n"

    def _head(self, kind: str) -> dict[str, object]:
        prefix = "chatcmpl" if self.endpoint == "chat" else "cmpl"
        name = f"{prefix}-{self.log_id}-{self.group}"
        return {"id": name, "object": kind, "created": self.created, "model": self.model}

    def _choice(self, index: int, answer: Answer) -> dict[str, object]:
        if self.endpoint == "chat":
            message = {"role": "assistant", "content": answer.text}
            return {
                "index": index,
                "message": message,
                "logprobs": None,
                "finish_reason": answer.finish_reason,
            }
        return {"index": index, "text": answer.text, "logprobs": None, "finish_reason": answer.finish_reason}

    def _delta(self, index: int, text: str, reason: FinishReason | None, *, first: bool) -> dict[str, object]:
        if self.endpoint == "completions":
            return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
        delta: dict[str, str] = {"role": "assistant"} if first else {}
        if text or first:
            delta["content"] = text
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def error_event(body: bytes) -> bytes:
    """An error in a stream that has begun; the stream ends after it, without `[DONE]`."""
    return b"data: " + body + b"\n\n"


def _records(issued: Sequence[Issued]) -> dict[str, object]:
    """Counters and seeds as strings: they may pass 2^53, which JSON readers round."""
    return {"records": [{"counter": str(item.counter), "seed": str(item.seed)} for item in issued]}


def _json(value: object) -> bytes:
    return pydantic_core.to_json(value)


def models_body(
    *, name: str, created: int, model_digest: str, profile: str, dtype: str, log_id: str
) -> bytes:
    """The list of models, which is the log's declaration: one model."""
    declaration = {"model_digest": model_digest, "profile": profile, "dtype": dtype, "log_id": log_id}
    model = {"id": name, "object": "model", "created": created, "owned_by": "declared", "ullage": declaration}
    return _json({"object": "list", "data": [model]})
