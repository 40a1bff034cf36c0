"""An OpenAI-compatible engine of the verifier's own, asked for the log-probabilities of whole transcripts."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx
import pydantic_core

from ullage.audit.engine.rows import read_prompt_logprobs
from ullage.deadline import within
from ullage.errors import FaultError, MalformedError, UsageError

_ENTRY_BYTES: Final = 400  # of one log-probability, with its token's text
_BASE_BYTES: Final = 1 << 20
MAX_ANSWER_BYTES: Final = 1 << 30
_SECONDS: Final = 600.0
"""For a whole answer, and for each piece of it."""
_TIMEOUT: Final = httpx.Timeout(_SECONDS, connect=10.0)
_TRIES: Final = 3
# A server may close an idle connection just as a question is put on it. Asking again is free of consequences.
_BROKEN: Final = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class EngineClient:
    """Use as a context manager. For several threads at once."""

    def __init__(self, url: str, vocabulary_size: int, model: str | None = None) -> None:
        """`url` is http://HOST:PORT, with or without /v1; `model` the name at the engine, None for its
        first. Raises UsageError."""
        self.url = _base(url)
        self.vocabulary_size = vocabulary_size
        self.model = model
        self.fingerprint: str | None = None
        self._http = httpx.Client(base_url=self.url, timeout=_TIMEOUT, trust_env=False)

    def __enter__(self) -> Self:
        try:
            self._check()
        except BaseException:
            self._http.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def prompt_logprobs(self, ids: list[int], width: int) -> list[Any]:
        """What the engine says of each of these tokens after those before it: its own log-probability and
        the `width` largest ones, by token id; the first has None. Raises UsageError, FaultError."""
        limit = _BASE_BYTES + len(ids) * (width + 1) * _ENTRY_BYTES
        if limit > MAX_ANSWER_BYTES:
            raise UsageError(
                f"{width} log-probabilities for each of {len(ids)} tokens would be an answer of up to "
                f"{limit >> 20} MiB. So flat distributions under top_p cannot be audited through an engine; "
                "audit them with the weights instead of --reference-url."
            )
        body = {
            "prompt": ids, "max_tokens": 1, "temperature": 0, "n": 1, "stream": False,
            "prompt_logprobs": -1 if width >= self.vocabulary_size else width,
        }  # fmt: skip
        data = self._post(body if self.model is None else {**body, "model": self.model}, limit)
        try:
            found, fingerprint = read_prompt_logprobs(data, len(ids))
        except MalformedError as error:
            raise FaultError(f"{self.url}: {error}") from error
        self.fingerprint = fingerprint or self.fingerprint
        return found

    def _check(self) -> None:
        """Whether anybody answers who gives log-probabilities of prompts. Raises UsageError."""
        try:
            found = pydantic_core.from_json(self._ask("GET", "/v1/models", None, _BASE_BYTES)[1])
            self.model = self.model or str(found["data"][0]["id"])
            self.prompt_logprobs([0, 0], 1)
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            raise UsageError(f"No OpenAI-compatible engine answers at {self.url}.") from error
        except FaultError as error:
            raise UsageError(f"The engine cannot be the reference: {error}") from error

    def _post(self, body: dict[str, Any], limit: int) -> bytes:
        for again in reversed(range(_TRIES)):
            try:
                status, data = self._ask("POST", "/v1/completions", body, limit)
                break
            except httpx.HTTPError as error:
                if not (again and isinstance(error, _BROKEN)):
                    raise FaultError(f"{self.url} did not answer ({type(error).__name__}).") from error
        if status != 200:
            said = data[:300].decode("utf-8", "replace")
            raise FaultError(f"{self.url} answered with status {status}: {said}")
        return data

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, limit: int) -> tuple[int, bytes]:
        late = f"{self.url} did not answer within {_SECONDS:g} s."
        return within(_SECONDS, partial(self._exchange, method, path, body, limit), late)

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None, limit: int) -> tuple[int, bytes]:
        data = bytearray()
        with self._http.stream(method, path, json=body) as answer:
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > limit:
                    raise FaultError(f"{self.url} sent more than {limit} bytes.")
        return answer.status_code, bytes(data)


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise UsageError(f"'{url[:200]}' is not an address of an engine; write http://HOST:PORT.")
    return url.rstrip("/").removesuffix("/v1")
