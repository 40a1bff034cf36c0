"""Drafts of a server that knows text alone: its answer is tokenised here, and the enforcer checks the tokens.

Text does not say which tokens it was made of, so what such a server delivers cannot be audited. As a draft it
can be used all the same: a token that was guessed wrong is replaced, as any wrong draft is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import pydantic_core

from ullage.tap.choices.tokens import Tokenizer
from ullage.tap.clients.request import CompletionRequest
from ullage.tap.failures import Failure, UpstreamError
from ullage.tap.upstream.answer import MAX_FINGERPRINT
from ullage.tap.upstream.connections import Traffic, Upstream
from ullage.tap.upstream.whole import whole_draft

_ANSWER_BASE: Final = 1 << 20
_BYTES_PER_TOKEN: Final = 512


class TextDrafts:
    """As `UpstreamDrafts`, for a server that takes a text and gives a text. One whole answer a question."""

    def __init__(
        self,
        request: CompletionRequest,
        upstream: Upstream,
        model: str | None,
        traffic: Traffic,
        tokenizer: Tokenizer,
    ) -> None:
        self._request = request
        self._upstream = upstream
        self._model = model
        self._traffic = traffic
        self._tokenizer = tokenizer
        self.fingerprint: str | None = None
        self._deadline = asyncio.get_running_loop().time() + upstream.timeouts.total

    async def after(self, released: Sequence[int]) -> AsyncGenerator[list[int]]:
        """See `Drafts`. At a temperature above 0 nobody is asked: such a server's noise is its own."""
        if float(self._request.temperature) > 0:
            raise UpstreamError(Failure.UPSTREAM_INVALID, "text is drafted at temperature 0 alone")
        left = self._request.max_tokens - len(released)
        before = (*self._request.prompt_ids, *released)
        prompt = self._tokenizer.spell(before)
        limit = _ANSWER_BASE + _BYTES_PER_TOKEN * left
        body = pydantic_core.to_json(self._body(prompt, left))
        data = await whole_draft(self._upstream, body, self._traffic, limit=limit, deadline=self._deadline)
        text, fingerprint = read_text(data)
        self.fingerprint = self.fingerprint or fingerprint
        yield self._tokens(text, left)

    def _body(self, prompt: str, left: int) -> dict[str, Any]:
        body: dict[str, Any] = {} if self._model is None else {"model": self._model}
        body |= {
            "prompt": prompt, "max_tokens": left, "temperature": 0.0, "stream": False
        }  # fmt: skip
        if self._request.stop:
            body["stop"] = list(self._request.stop)
        return body

    def _tokens(self, text: str, left: int) -> list[int]:
        """The text's usual tokens, and the end if there was room for more: why else did the server end?"""
        ids = self._tokenizer.encode_bare(text)[:left]
        if len(ids) < left and not self._request.stop:
            ids.append(min(self._tokenizer.eos_ids, default=0))
        return ids


def read_text(data: bytes) -> tuple[str, str | None]:
    """The text of a whole answer's one choice, and the server's fingerprint. Raises UpstreamError."""
    try:
        body = pydantic_core.from_json(data)
        text, fingerprint = body["choices"][0]["text"], body.get("system_fingerprint")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UpstreamError(Failure.UPSTREAM_INVALID, "no text") from error
    if not isinstance(text, str):
        raise UpstreamError(Failure.UPSTREAM_INVALID, "no text")
    return text, fingerprint[:MAX_FINGERPRINT] if isinstance(fingerprint, str) else None
