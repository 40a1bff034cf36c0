"""Released tokens are the reference's; the server's are drafts that make it quick.

`enforced` yields what the reference says, whatever the source of drafts does: wrong tokens are replaced and
the source is asked to go on from the corrected prefix; after too many of them, or when the source fails,
ends too early or does not answer, the reference decodes the rest alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, Protocol

from ullage.enforce.accounting import Tally
from ullage.enforce.protocol import Answer, FinishReason
from ullage.tap.choices.enforcement import EnforcedRequest
from ullage.tap.clients.request import CompletionRequest, upstream_body
from ullage.tap.failures import Failure, UpstreamError
from ullage.tap.upstream.answer import EventReader, read_answer, read_event
from ullage.tap.upstream.connections import Traffic, Upstream
from ullage.tap.upstream.link import DEFAULT_LINK, Link
from ullage.tap.upstream.whole import COMPLETIONS_PATH, whole_draft

DEFAULT_REPLACEMENTS: Final = 8
_BODY_BASE: Final = 1 << 20
_BYTES_PER_TOKEN: Final = 4096


class Drafts(Protocol):
    """Where drafts come from."""

    def after(self, released: Sequence[int]) -> AsyncGenerator[list[int]]:
        """Tokens that the source puts after the prompt and these. Raises UpstreamError."""
        ...


def _never() -> float | None:
    return None


async def enforced(
    request: EnforcedRequest,
    drafts: Drafts,
    tally: Tally,
    *,
    replacements: int = DEFAULT_REPLACEMENTS,
    continues: bool = True,
    deadline: Callable[[], float | None] = _never,
) -> AsyncGenerator[tuple[tuple[int, ...], FinishReason | None]]:
    """The reference's tokens in pieces, the last with the finish reason.

    `replacements` wrong drafts are put right before the source is given up; `continues` is False for
    profiles whose noise a continuation would restart; `deadline` says until when, on the event loop's clock,
    drafts for the next token may come. A source that has failed (`tally.failure`) is not asked.
    Raises EnforcerError.
    """
    released: list[int] = []
    while request.finish_reason is None:
        if tally.failure:
            answer = await request.decode(request.span)
            tally.alone += len(answer.tokens)
            released += answer.tokens
            yield answer.tokens, answer.finish_reason
            continue
        async with contextlib.aclosing(_checked(request, drafts, released, tally, deadline)) as answers:
            async for answer in answers:
                released += answer.tokens
                yield answer.tokens, answer.finish_reason
        if tally.replaced > (replacements if continues else 0):
            tally.failure = tally.failure or "given up after its last wrong token"


async def _checked(
    request: EnforcedRequest,
    drafts: Drafts,
    released: Sequence[int],
    tally: Tally,
    deadline: Callable[[], float | None],
) -> AsyncGenerator[Answer]:
    """Answers to one run of the source's, up to its first wrong token, its end, or the output's."""
    pending: list[int] = []
    try:
        async with contextlib.aclosing(drafts.after(tuple(released))) as source:
            while (ids := await _next(source, deadline())) is not None:
                pending += ids
                while len(pending) >= request.span:
                    count = request.span
                    answer = await _check(request, pending[:count], tally)
                    del pending[:count]
                    yield answer
                    if request.finish_reason is not None or answer.accepted < count:
                        return
    except UpstreamError as error:
        tally.failure = error.detail
    while pending and request.finish_reason is None:
        count = min(len(pending), request.span)
        answer = await _check(request, pending[:count], tally)
        del pending[:count]
        yield answer
        if answer.accepted < count:
            return
    if request.finish_reason is None:
        tally.failure = tally.failure or "the source ended before the output"


async def _next(source: AsyncGenerator[list[int]], deadline: float | None) -> list[int] | None:
    """The source's next drafts, None at its end. Raises UpstreamError when they are late or unreadable."""
    try:
        async with asyncio.timeout_at(deadline):
            return await anext(source, None)
    except TimeoutError as error:
        raise UpstreamError(Failure.UPSTREAM_TIMEOUT, "no drafts in time") from error
    except UpstreamError:
        raise
    except Exception as error:  # whatever a server sends, it must not be able to end an answer
        what = f"drafts that cannot be read ({type(error).__name__})"
        raise UpstreamError(Failure.UPSTREAM_INVALID, what) from error


async def _check(request: EnforcedRequest, drafts: Sequence[int], tally: Tally) -> Answer:
    answer = await request.check(drafts)
    tally.drafted += len(answer.tokens)
    tally.replaced += answer.accepted < len(answer.tokens)
    return answer


class UpstreamDrafts:
    """Drafts of the server behind the tap, streamed, so that they are checked while it decodes.

    A `link` of the form `whole` has one answer instead, whose bytes a meter can explain.
    """

    def __init__(
        self,
        request: CompletionRequest,
        seed: int,
        upstream: Upstream,
        model: str | None,
        traffic: Traffic,
        *,
        link: Link = DEFAULT_LINK,
    ) -> None:
        self._request = request
        self._seed = seed
        self._link = link
        self._upstream = upstream
        self._model = model
        self._traffic = traffic
        self.fingerprint: str | None = None
        self._deadline = asyncio.get_running_loop().time() + upstream.timeouts.total

    async def after(self, released: Sequence[int]) -> AsyncGenerator[list[int]]:
        """See `Drafts`. Never more tokens than the answer can still have, whatever the server sends."""
        left = self._request.max_tokens - len(released)
        prompt_ids = (*self._request.prompt_ids, *released)
        rest = dataclasses.replace(self._request, prompt_ids=prompt_ids, max_tokens=left)
        limit = _BODY_BASE + _BYTES_PER_TOKEN * (left + len(prompt_ids))
        if self._link.form == "whole":
            yield await self._answer(rest, limit)
            return
        async with contextlib.aclosing(self._stream(rest, limit)) as pieces:
            async for ids in pieces:
                yield ids[:left]
                left -= len(ids)
                if left <= 0:
                    return

    def _body(self, rest: CompletionRequest, *, stream: bool) -> bytes:
        return upstream_body(
            rest, self._seed, self._model, stream=stream, interval=self._link.interval,
            compact=self._link.form != "events", logprobs=self._link.logprobs,
        )  # fmt: skip

    async def _answer(self, rest: CompletionRequest, limit: int) -> list[int]:
        data = await whole_draft(
            self._upstream,
            self._body(rest, stream=False),
            self._traffic,
            limit=limit,
            deadline=self._deadline,
        )
        delta = read_answer(data)
        self.fingerprint = self.fingerprint or delta.fingerprint
        return delta.ids[: rest.max_tokens]

    async def _stream(self, rest: CompletionRequest, limit: int) -> AsyncGenerator[list[int]]:
        body = self._body(rest, stream=True)
        events = EventReader()
        async with self._upstream.post(COMPLETIONS_PATH, body, self._traffic, stream=True) as response:
            if response.status != 200 or response.content_type != "text/event-stream":
                raise UpstreamError(Failure.UPSTREAM_INVALID, f"status {response.status}")
            async for piece in response.body(limit):
                if asyncio.get_running_loop().time() > self._deadline:
                    raise UpstreamError(Failure.UPSTREAM_TIMEOUT, "no whole answer in time")
                for data in events.feed(piece):
                    if data == b"[DONE]":
                        return
                    delta = read_event(data)
                    self.fingerprint = self.fingerprint or delta.fingerprint
                    yield delta.ids
