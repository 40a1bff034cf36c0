"""What the tap reads of an upstream's answer: token ids, the prompt ids it claims, its fingerprint.

Everything else (text, finish reason, usage, ids, times) is not looked at, since the tap makes its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pydantic_core

from ullage.tap.failures import Failure, UpstreamError

MAX_FINGERPRINT = 256
_MAX_EVENT_BYTES = 4 << 20


@dataclass(frozen=True)
class Delta:
    """Tokens of an answer, all of them or those of one event."""

    ids: list[int]
    prompt_ids: list[int] | None
    fingerprint: str | None


def _invalid(detail: str) -> UpstreamError:
    return UpstreamError(Failure.UPSTREAM_INVALID, detail)


def read_answer(data: bytes) -> Delta:
    """A whole answer of /v1/completions. Raises UpstreamError."""
    body = _object(data)
    choices = body.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        raise _invalid("not exactly one choice")
    return _delta(body, choices[0])


def read_event(data: bytes) -> Delta:
    """One event of a streamed answer. Raises UpstreamError."""
    body = _object(data)
    choices = body.get("choices")
    if "error" in body:
        raise UpstreamError(Failure.UPSTREAM_ENDED_EARLY, "an error event in the stream")
    if choices == []:  # the event that carries usage
        return Delta([], None, _fingerprint(body))
    if not isinstance(choices, list) or len(choices) != 1:
        raise _invalid("not exactly one choice in an event")
    return _delta(body, choices[0])


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = pydantic_core.from_json(data)
    except ValueError as error:
        raise _invalid("not JSON") from error
    if not isinstance(body, dict):
        raise _invalid("not a JSON object")
    return body


def _delta(body: dict[str, Any], choice: object) -> Delta:
    if not isinstance(choice, dict):
        raise _invalid("a choice that is not an object")
    ids = choice.get("token_ids")
    if ids is None:
        ids = _ids_of_logprobs(choice.get("logprobs"))
    if ids is None and choice.get("text") in (None, ""):
        ids = []
    prompt_ids = choice.get("prompt_token_ids")
    if prompt_ids is None:
        prompt_ids = body.get("prompt_token_ids")
    return Delta(
        _ids(ids, "token_ids"),
        None if prompt_ids is None else _ids(prompt_ids, "prompt_token_ids"),
        _fingerprint(body),
    )


def _ids_of_logprobs(value: object) -> list[object] | None:
    """The ids that llama.cpp's server names in `logprobs.content`; None where there are none."""
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        return None
    return [item.get("id") for item in content]


def _ids(value: object, name: str) -> list[int]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise _invalid(f"no list of integers in {name}; the upstream must honour return_token_ids")
    return value


def _fingerprint(body: dict[str, Any]) -> str | None:
    value = body.get("system_fingerprint")
    return value[:MAX_FINGERPRINT] if isinstance(value, str) else None


class EventReader:
    """Server-sent events out of pieces of bytes (HTML standard, section 9.2.6), the `data` field alone."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of a line without end so far, joined once it has one
        self._open = 0  # bytes of it
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of every event that this piece completes. Raises UpstreamError for one without end."""
        first, *lines = piece.split(b"\n")
        self._line.append(first)
        self._open += len(first)
        if lines:
            rest = lines.pop()
            lines.insert(0, b"".join(self._line))
            self._line, self._open = [rest], len(rest)
        for line in lines:
            text = line.removesuffix(b"\r")
            self._size += len(text)
            if not text:
                if self._data:
                    yield b"\n".join(self._data)
                self._data, self._size = [], 0
            elif text.startswith(b"data:"):
                self._data.append(text[5:].removeprefix(b" "))
            self._check_size()
        self._check_size()

    def _check_size(self) -> None:
        if self._size + self._open > _MAX_EVENT_BYTES:
            raise _invalid("an event without end")
