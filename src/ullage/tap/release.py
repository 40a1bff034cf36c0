"""How an answer is pulled from the server and let out: whole or streamed, at once or in slots.

Each piece is on record before it leaves (`ullage.tap.recorder`). What becomes of a request that fails is
`ullage.tap.gateway`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ullage.tap.choices.canonical import CanonicalSpelling
from ullage.tap.choices.choice import Choice, pull
from ullage.tap.choices.enforced import Enforcement, pull_enforced
from ullage.tap.clients.request import CompletionRequest
from ullage.tap.clients.response import error_event
from ullage.tap.failures import Failure, error_body
from ullage.tap.meters import Meters
from ullage.tap.pacing.schedule import Pacer, Schedule
from ullage.tap.recorder import Recorder
from ullage.tap.reply import Reply
from ullage.tap.upstream.connections import Upstream
from ullage.tap.upstream.link import Link

BODY_BYTES_PER_TOKEN: Final = 8  # a padded body's size is a multiple of so many bytes a token of its bucket


class Release(Protocol):
    """The way to one client."""

    started: bool  # whether a head has been sent
    gone: bool  # whether the client has hung up

    async def send(self, status: int, body: bytes) -> None:
        """A whole JSON response."""

    def put(self, data: bytes) -> None:
        """Bytes of a stream; the head goes before the first."""

    async def write(self, data: bytes) -> None:
        """The same, and wait while the client does not take them."""

    async def finish(self, data: bytes) -> None:
        """The last bytes of a stream."""


@dataclass(frozen=True)
class Source:
    """The server, what the model is called there (None: not at all), and how it is asked."""

    upstream: Upstream
    model: str | None
    link: Link


class Releaser:
    """Pulls answers and lets them out. `enforcement`, if any, is set before the first request."""

    def __init__(
        self,
        recorder: Recorder,
        source: Source,
        spelling: CanonicalSpelling,
        meters: Meters,
        pacer: Pacer | None,
    ) -> None:
        self.enforcement: Enforcement | None = None
        self._recorder = recorder
        self._source = source
        self._spelling = spelling
        self._meters = meters
        self._pacer = pacer

    def schedule(self, request: CompletionRequest, counter: int) -> Schedule | None:
        """The slots of a request that has arrived now; None where answers leave at once."""
        if self._pacer is None:
            return None
        whole = request.stream and self._source.link.form == "whole" and self.enforcement is None
        return self._pacer.schedule(request.max_tokens, counter, whole_first=whole)

    async def release(self, reply: Reply, release: Release) -> None:
        """Pull the answer and let it out, each piece once it is on record.

        Raises UpstreamError, LogUnavailableError, AllowanceSpentError.
        """
        schedule = reply.schedule
        if schedule is not None:
            pull = self._stream_in_slots if reply.request.stream else self._plain_in_slots
            await pull(reply, release, schedule)
        elif reply.request.stream:
            await self._stream(reply, release)
        else:
            await self._plain(reply, release)

    async def _plain(self, reply: Reply, release: Release) -> None:
        await self._pull_all(reply)
        self._annotate(reply)
        body, parts = reply.complete_plain()
        await self._recorder.append(parts)
        await release.send(200, body)

    async def _plain_in_slots(self, reply: Reply, release: Release, schedule: Schedule) -> None:
        """The whole answer at the slot that its length gives it, at the latest at one of the late ones.

        It is put on record then, too, and not when it came: others read the log (`ullage.tap.pacing.grid`).
        """
        pace = schedule.pace
        async with schedule.in_time():
            await self._pull_all(reply)
        groups = pace.groups(max(len(choice.transcript.ids) for choice in reply.choices))
        slot = schedule.place(groups - 1)
        self._annotate(reply)
        await schedule.record_time(slot)
        body, parts = reply.complete_plain(pace.pad_to * BODY_BYTES_PER_TOKEN or 1)
        await self._recorder.append(parts)
        await schedule.reach(slot)
        await release.send(200, body)

    async def _pull_all(self, reply: Reply) -> None:
        """Pull every choice; the first that fails ends the others. Raises UpstreamError."""
        first, *others = reply.choices
        if not others:
            await self._pull(first, reply, lambda: None)
            return
        tasks = [asyncio.ensure_future(self._pull(choice, reply, lambda: None)) for choice in reply.choices]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _cancel(tasks)

    async def _stream(self, reply: Reply, release: Release) -> None:
        """Release text as it comes. What arrives while a part is being made durable joins the next part."""
        wake = asyncio.Event()
        tasks = self._start_pulls(reply, wake)
        try:
            while not await _all_ended(tasks, wake):
                events, parts = reply.next_chunks()
                if parts:
                    await self._recorder.append(parts)
                    for event in events:
                        await release.write(event)
        finally:
            await _cancel(tasks)
        self._annotate(reply)
        *events, last = await self._complete_stream(reply)
        for event in events:
            await release.write(event)
        await release.finish(last)

    async def _complete_stream(self, reply: Reply) -> list[bytes]:
        events, parts = reply.complete_stream()
        await self._recorder.append(parts)
        return events

    async def _stream_in_slots(self, reply: Reply, release: Release, schedule: Schedule) -> None:
        """A group of tokens a slot, in pieces of one size, up to the end of the length's bucket."""
        pace = schedule.pace
        wake = asyncio.Event()
        tasks = self._start_pulls(reply, wake)
        try:
            number, groups = 0, None
            while groups is None or number < groups:
                if groups is None:
                    async with schedule.in_time():
                        # A stream that begins after its length waits for all of it.
                        most = None if schedule.whole_first else pace.tokens
                        ended = await self._has_group(tasks, wake, reply, most)
                    if ended:
                        groups = pace.groups(max(len(choice.transcript.ids) for choice in reply.choices))
                slot = schedule.place(number, groups)
                is_last = number + 1 == groups
                if is_last:
                    self._annotate(reply)
                await schedule.record_time(slot)
                data, parts = reply.slot_chunk(pace.tokens, pace.chunk_bytes, last=is_last)
                await self._recorder.append(parts)
                await schedule.reach(slot)
                if is_last:
                    await release.finish(data)
                else:
                    release.put(data)  # a client that does not read must not make the server late
                number += 1
        finally:
            await _cancel(tasks)

    async def _has_group(
        self, tasks: Sequence[asyncio.Task[None]], wake: asyncio.Event, reply: Reply, tokens: int | None
    ) -> bool:
        """Wait until the next group of every choice is there, or all (None); True when all have ended.

        A full group may be the last one, which carries the end: so one token more is waited for. What
        remains of outputs that are at their end is the last group, and waits for the responses' ends.
        """
        ended = False
        while not ended:
            # Looked at before anything is waited for: one event may have brought several groups.
            full = [tokens is not None and len(choice.pending) > tokens for choice in reply.choices]
            at_end = [choice.transcript.finish_reason is not None for choice in reply.choices]
            ready = any(full) and all(one or other for one, other in zip(full, at_end, strict=True))
            if ready and not all(task.done() for task in tasks):
                return False
            ended = await _all_ended(tasks, wake)
        return True

    def _start_pulls(self, reply: Reply, wake: asyncio.Event) -> list[asyncio.Task[None]]:
        tasks = [asyncio.ensure_future(self._pull(choice, reply, wake.set)) for choice in reply.choices]
        for task in tasks:
            task.add_done_callback(lambda _: wake.set())
        return tasks

    async def _pull(self, choice: Choice, reply: Reply, progress: Callable[[], None]) -> None:
        if self.enforcement is None:
            await pull(
                choice,
                reply.request,
                self._source.upstream,
                self._source.model,
                progress,
                self._source.link,
                self._pacer,
            )
        else:
            await pull_enforced(
                choice, reply.request, self.enforcement, self._source.upstream, self._source.model, progress
            )

    def _annotate(self, reply: Reply) -> None:
        """Note in the record outputs whose ids are not the tokenizer's own."""
        for choice in reply.choices:
            position = self._spelling.departs_at(choice.transcript.ids)
            if position is not None:
                self._meters.noncanonical += 1
                choice.note(f"token ids not canonical from position {position}")


async def _all_ended(tasks: Sequence[asyncio.Task[None]], wake: asyncio.Event) -> bool:
    """Wait for news; whether all pulls have ended. Raises what one of them raised."""
    if not all(task.done() for task in tasks):
        await wake.wait()
        wake.clear()
    ended = [task for task in tasks if task.done()]
    for task in ended:
        task.result()
    return len(ended) == len(tasks)


async def _cancel(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def send_error(release: Release, failure: Failure) -> None:
    """One error, as a response or, in a stream that has begun, as its last event."""
    if release.started:
        await release.finish(error_event(error_body(failure)))
    else:
        await release.send(failure.status, error_body(failure))
