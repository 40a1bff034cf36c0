"""One choice of one request: its record, its growing output, and the pull from the upstream.

How the server cuts its answer into events must not show, so a stream's tokens are decoded one by one: which
text belongs to which token is a function of the tokens alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace

from ullage.tap.choices.finish import FinishReason, Transcript
from ullage.tap.clients.request import CompletionRequest, upstream_body
from ullage.tap.failures import Failure, UpstreamError
from ullage.tap.pacing.schedule import Pacer
from ullage.tap.recorder import ChoiceRecord
from ullage.tap.upstream.answer import Delta, EventReader, read_answer, read_event
from ullage.tap.upstream.connections import Response, Traffic, Upstream
from ullage.tap.upstream.link import DEFAULT_LINK, Link
from ullage.tap.upstream.whole import COMPLETIONS_PATH

_BODY_BASE = 64 << 10  # what an answer may have beside its tokens: more is time that the tap stands still
_BODY_PER_TOKEN = 512  # a token's id and text in a whole answer
_EVENT_PER_TOKEN = 4096  # a token's event in a stream
_AT_ONCE = 64  # tokens of a whole answer that are decoded without a look at the clock


@dataclass(frozen=True)
class Step:
    """Tokens that arrived, one in a stream, and the text that they made releasable."""

    ids: Sequence[int]
    text: str


@dataclass
class Choice:
    """State of one choice. `pending` has arrived and is in no part of the record yet."""

    index: int
    record: ChoiceRecord
    transcript: Transcript
    prompt_ids: Sequence[int]
    traffic: Traffic = field(default_factory=Traffic)
    fingerprint: str | None = None
    pending: list[Step] = field(default_factory=list)
    stepwise: bool = False  # a stream, whose tokens are decoded one by one
    text_begun: bool = False  # whether an event of this choice has been made
    error: UpstreamError | None = None
    detail: str = ""  # what the record says of how the output came about
    reading: asyncio.Future[None] | None = None  # an answer that is read to its end, whoever has gone

    def __post_init__(self) -> None:
        self.traffic.counter = self.record.counter

    @property
    def finish_reason(self) -> FinishReason:
        """Why the output ended. Only of a choice whose pull has returned without an error."""
        assert self.transcript.finish_reason is not None  # noqa: S101 - `pull` raises otherwise
        return self.transcript.finish_reason

    def note(self, sentence: str) -> None:
        """Add to what the record says of this choice."""
        self.detail = f"{self.detail}; {sentence}" if self.detail else sentence

    def take(self, delta: Delta) -> None:
        """Add what an answer or an event brought. Raises UpstreamError."""
        if self.fingerprint is None:
            self.fingerprint = delta.fingerprint
        if delta.prompt_ids is not None and delta.prompt_ids != list(self.prompt_ids):
            raise UpstreamError(
                Failure.UPSTREAM_INVALID, "the upstream's prompt ids differ from the tap's", refused=True
            )
        if self.stepwise:
            for token in delta.ids:
                self.pending.append(Step((token,), self.transcript.feed((token,))))
        elif delta.ids:
            self.pending.append(Step(delta.ids, self.transcript.feed(delta.ids)))

    def flush(self, tokens: int | None = None) -> tuple[list[int], str]:
        """Take ids and text out, to be recorded at once; of a stream at most so many tokens."""
        taken = self.pending[:tokens]
        del self.pending[: len(taken)]
        return [token for step in taken for token in step.ids], "".join(step.text for step in taken)

    def flush_text(self, *, ended: bool = False) -> tuple[list[int], list[str]]:
        """Take out what has text, all ids of it, and the texts, one for each token that made any.

        While no token has made text nothing is taken, unless the output has ended.
        """
        texts = [step.text for step in self.pending if step.text]
        if not texts and not ended:
            return [], []
        ids = [token for step in self.pending for token in step.ids]
        self.pending.clear()
        return ids, texts


async def pull(  # noqa: PLR0917 - as `pull_enforced`, and how to ask
    choice: Choice,
    request: CompletionRequest,
    upstream: Upstream,
    upstream_model: str | None,
    progress: Callable[[], None],
    link: Link = DEFAULT_LINK,
    pacer: Pacer | None = None,
) -> None:
    """Ask the upstream for one choice and feed its transcript until both have ended.

    An output that has ended is read on to the response's end, because tokens after it are a breach. On a
    journaled link an answer is read to its end even if this is cancelled (`choice.reading`): what the server
    has sent already could not be explained otherwise. Raises UpstreamError, also left in `choice.error`.
    """
    await read_to_the_end(
        choice, upstream, _pull(choice, request, upstream, upstream_model, progress, link, pacer)
    )


async def read_to_the_end(choice: Choice, upstream: Upstream, asking: Coroutine[None, None, None]) -> None:
    """Run `asking`: on a journaled link as `choice.reading`, which goes on when its waiter is cancelled."""
    if upstream.journal is None:
        await asking
        return
    choice.reading = asyncio.ensure_future(asking)
    choice.reading.add_done_callback(lambda task: task.cancelled() or task.exception())
    await asyncio.shield(choice.reading)


async def _pull(  # noqa: PLR0917 - as `pull`
    choice: Choice,
    request: CompletionRequest,
    upstream: Upstream,
    upstream_model: str | None,
    progress: Callable[[], None],
    link: Link,
    pacer: Pacer | None,
) -> None:
    streams = request.stream and link.form != "whole"
    body = upstream_body(
        request,
        choice.record.seed,
        upstream_model,
        stream=streams,
        interval=link.interval,
        compact=link.form != "events",
        logprobs=link.logprobs,
    )
    try:
        async with asyncio.timeout(upstream.timeouts.total):
            async with upstream.post(COMPLETIONS_PATH, body, choice.traffic, stream=streams) as response:
                if streams:
                    await _pull_events(choice, request, response, progress, pacer)
                else:
                    await _pull_answer(choice, request, response, pacer)
            _expect_end(choice)
    except TimeoutError as error:
        choice.error = UpstreamError(Failure.UPSTREAM_TIMEOUT, "no whole answer in time")
        raise choice.error from error
    except UpstreamError as error:
        choice.error = error
        raise


async def _pull_answer(
    choice: Choice, request: CompletionRequest, response: Response, pacer: Pacer | None
) -> None:
    _expect(response, "application/json")
    tokens = len(request.prompt_ids) + request.max_tokens
    data = await response.whole(_BODY_BASE + _BODY_PER_TOKEN * tokens)
    if pacer is not None:
        await pacer.clock.keep_clear()
    delta = read_answer(data)
    if not choice.stepwise:
        choice.take(delta)
        return
    choice.take(replace(delta, ids=delta.ids[:_AT_ONCE]))
    for first in range(_AT_ONCE, len(delta.ids), _AT_ONCE):
        if pacer is not None:
            await pacer.clock.keep_clear()  # a long answer would delay others' slots
        choice.take(replace(delta, ids=delta.ids[first : first + _AT_ONCE], prompt_ids=None))


async def _pull_events(
    choice: Choice,
    request: CompletionRequest,
    response: Response,
    progress: Callable[[], None],
    pacer: Pacer | None,
) -> None:
    _expect(response, "text/event-stream")
    limit = _BODY_BASE + _BODY_PER_TOKEN * len(request.prompt_ids) + _EVENT_PER_TOKEN * request.max_tokens
    reader = EventReader()
    done = False
    async for piece in response.body(limit):
        for data in reader.feed(piece):
            if pacer is not None:
                await pacer.clock.keep_clear()  # for each: many events may come in one piece
            if done:
                raise UpstreamError(Failure.UPSTREAM_INVALID, "an event after [DONE]")
            if data == b"[DONE]":
                done = True
            else:
                choice.take(read_event(data))
                progress()


def _expect_end(choice: Choice) -> None:
    if choice.transcript.finish_reason is None:
        raise UpstreamError(Failure.UPSTREAM_ENDED_EARLY, "upstream ended early")


def _expect(response: Response, content_type: str) -> None:
    if response.status in (400, 422):
        what = f"status {response.status}; the upstream must take a prompt of token ids"
        raise UpstreamError(Failure.UPSTREAM_INVALID, what)
    if response.status != 200:
        raise UpstreamError(Failure.UPSTREAM_INVALID, f"status {response.status}")
    if response.content_type != content_type:
        raise UpstreamError(Failure.UPSTREAM_INVALID, f"a content type other than {content_type}")
