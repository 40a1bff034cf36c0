"""The life of a request in the tap: record, forward, check, record again, release.

Nothing leaves before the part that describes it is durable. Whatever happens, the records of a request that
was forwarded are closed: after a fault with an error of the fixed list, after a disconnect with what was
released.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from ullage.log.record import Part
from ullage.tap.choices.canonical import CanonicalSpelling
from ullage.tap.choices.choice import Choice
from ullage.tap.choices.enforced import Enforcement
from ullage.tap.choices.finish import Transcript
from ullage.tap.choices.tokens import Tokenizer
from ullage.tap.clients.request import CompletionRequest
from ullage.tap.clients.response import Envelope, error_event
from ullage.tap.failures import Failure, LogUnavailableError, UpstreamError, error_body
from ullage.tap.gate import Gate
from ullage.tap.meters import Meters
from ullage.tap.pacing.schedule import AllowanceSpentError, Pacer, Schedule
from ullage.tap.recorder import NANOSECONDS, Recorder
from ullage.tap.release import Release, Releaser, Source, send_error
from ullage.tap.reply import Reply
from ullage.tap.upstream.connections import Upstream
from ullage.tap.upstream.link import DEFAULT_LINK, Link

_LAST_WAIT: Final = 5.0  # seconds for requests in flight to close their records when the tap ends
# Seconds for answers on a metered link to be read, whose bytes are unexplained otherwise.
_LAST_READING: Final = 15.0


@dataclass(frozen=True)
class Names:
    """What the model is called towards clients, and towards the upstream (None: not at all)."""

    model: str
    upstream_model: str | None


class Gateway:
    """Answers requests. One instance for all requests of an event loop."""

    def __init__(
        self,
        recorder: Recorder,
        upstream: Upstream,
        tokenizer: Tokenizer,
        names: Names,
        *,
        gate: Gate | None = None,
        meters: Meters | None = None,
        link: Link = DEFAULT_LINK,
        pacer: Pacer | None = None,
    ) -> None:
        self.recorder = recorder
        self.gate = gate or Gate()
        self.meters = meters or Meters()
        self._tokenizer = tokenizer
        self._name = names.model
        self._releaser = Releaser(
            recorder,
            Source(upstream, names.upstream_model, link),
            CanonicalSpelling(tokenizer),
            self.meters,
            pacer,
        )
        self._answering: dict[asyncio.Task[Any], asyncio.Future[None]] = {}  # and when they are answered
        self._last_closes: set[asyncio.Task[None]] = set()
        self._reading: set[asyncio.Future[None]] = set()  # answers whose clients have gone
        self._ending = asyncio.Event()  # the tap ends
        # Answers whose records were closed before their end.
        self._given_up: set[asyncio.Future[None]] = set()

    @property
    def enforcement(self) -> Enforcement | None:
        """The reference that decides every token, if there is one. Set before the first request."""
        return self._releaser.enforcement

    @enforcement.setter
    def enforcement(self, value: Enforcement | None) -> None:
        self._releaser.enforcement = value

    async def answer(self, request: CompletionRequest, bytes_from_client: int, release: Release) -> None:
        """Serve one request to its end. A cancellation means that the client is gone or the tap stops; the
        records are closed before it, or any other exception, is passed on.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._answering[task] = answered = asyncio.get_running_loop().create_future()
        try:
            await self._answer(request, bytes_from_client, release)
        finally:
            del self._answering[task]
            answered.set_result(None)

    async def _answer(self, request: CompletionRequest, bytes_from_client: int, release: Release) -> None:
        time_received = time.time_ns()
        records, opens = self.recorder.issue(request, time_received, bytes_from_client)
        choices = [
            Choice(
                index,
                record,
                Transcript(self._tokenizer, request.stop, request.max_tokens),
                request.prompt_ids,
                stepwise=request.stream,
            )
            for index, record in enumerate(records)
        ]
        log_id = self.recorder.log.header.log_id
        created = time_received // NANOSECONDS
        envelope = Envelope(
            request.endpoint, log_id, records[0].counter, created, self._name, len(request.prompt_ids)
        )
        schedule = self._releaser.schedule(request, records[0].counter)
        if schedule is not None:
            for choice in choices:
                choice.traffic.hold_up = schedule.hold_up
        reply = Reply(request, choices, envelope, schedule)
        try:
            await self._attempt(reply, opens, release)
        except asyncio.CancelledError:
            reading = [choice.reading for choice in choices if choice.reading is not None]
            if release.gone and schedule is not None:
                schedule.gone()
            if release.gone and reading:
                self._reading.update(reading)
                await asyncio.shield(self._in_background(self._close_when_read(reply, reading)))
            elif release.gone:
                self._close_in_background(reply.closes_of_gone())
            else:
                await self._close_in_background(reply.closes_of_abort("the tap was stopped"))
            raise
        except Exception:
            await self._close_in_background(reply.closes_of_abort("the tap failed"))
            raise
        finally:
            self._give_up(choices)
            self.meters.finished(choices, streamed=request.stream)

    async def _attempt(self, reply: Reply, opens: Sequence[Part], release: Release) -> None:
        """Forward and release, or tell the client why not."""
        try:
            await self.recorder.append(opens)
            await self._releaser.release(reply, release)
        except UpstreamError as error:
            await self._fail(reply, error, release)
        except LogUnavailableError as error:
            await self._log_failure(error, release)
        except AllowanceSpentError:
            await self._close_in_background(
                reply.closes_of_abort("late and failed answers beyond their allowance")
            )
            await send_error(release, Failure.CHANNEL_EXHAUSTED)

    async def drain(self) -> None:
        """Wait until every record is closed and nothing uses the server any more.

        uvicorn cancels the requests in flight and does not wait for them, and not even that when it is
        told to hurry: a close that the end of the event loop overtook would be missing from the log.
        Answers of clients that have gone are read on for a while, then given up.
        """
        self._ending.set()
        for given_up in self._given_up:
            given_up.cancel()
        if self._reading:
            await asyncio.wait(self._reading, timeout=_LAST_READING)
        for reading in self._reading:
            reading.cancel()
        if self._answering:
            await asyncio.wait(self._answering.values(), timeout=_LAST_WAIT)
        for task in list(self._answering):
            task.cancel()
        if self._answering:
            await asyncio.wait(self._answering.values(), timeout=_LAST_WAIT)
        while self._last_closes:
            await asyncio.gather(*self._last_closes, return_exceptions=True)
        for given_up in self._given_up:
            given_up.cancel()
        await asyncio.gather(*self._given_up, return_exceptions=True)

    async def _fail(self, reply: Reply, error: UpstreamError, release: Release) -> None:
        self.meters.failed += 1
        if error.failure is Failure.ENFORCER_UNAVAILABLE:
            self.gate.alarms[error.failure] += 1
        if reply.schedule is not None and error.failure is Failure.UPSTREAM_FAILED:
            try:
                await reply.schedule.failure()
            except AllowanceSpentError:
                error = UpstreamError(Failure.CHANNEL_EXHAUSTED, error.detail)
        body = error_body(error.failure)
        data = error_event(body) if release.started else body
        try:
            await self.recorder.append(reply.closes_of_failure(error, data))
        except LogUnavailableError as fault:
            await self._log_failure(fault, release)
            return
        await send_error(release, error.failure)

    async def _log_failure(self, error: LogUnavailableError, release: Release) -> None:
        self._report(error)
        await send_error(release, Failure.LOG_UNAVAILABLE)

    def _close_in_background(self, parts: Sequence[Part]) -> asyncio.Task[None]:
        """Append closes whatever becomes of the task that asks for it; `drain` waits for them."""
        return self._in_background(self._append_closes(parts))

    async def _close_when_read(self, reply: Reply, reading: Sequence[asyncio.Future[None]]) -> None:
        """Close the records of a client that has gone once its answers have been read."""
        if reply.schedule is not None:
            await self._until_last_slot(reply.schedule, reading)
        await asyncio.wait(reading)
        self._reading.difference_update(reading)
        await self._append_closes(reply.closes_of_gone(received=True))

    async def _until_last_slot(self, schedule: Schedule, reading: Sequence[asyncio.Future[None]]) -> None:
        """Whoever reads the log sees when a record was closed: that must not be when the server answered.

        What it has not brought by then is given up. The end of the tap comes first.
        """
        last = asyncio.ensure_future(schedule.last())
        ending = asyncio.ensure_future(self._ending.wait())
        await asyncio.wait([last, ending], return_when=asyncio.FIRST_COMPLETED)
        if last.done():
            for one in reading:
                one.cancel()
        last.cancel()
        ending.cancel()

    def _give_up(self, choices: Sequence[Choice]) -> None:
        """Remember what is still being read though nobody waits for it, so that `drain` ends it."""
        for choice in choices:
            reading = choice.reading
            if reading is not None and not reading.done() and reading not in self._reading:
                self._given_up.add(reading)
                reading.add_done_callback(self._given_up.discard)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._last_closes.add(task)
        task.add_done_callback(self._last_closes.discard)
        return task

    async def _append_closes(self, parts: Sequence[Part]) -> None:
        try:
            if parts:
                await self.recorder.append(parts)
        except LogUnavailableError as error:
            self._report(error)

    def _report(self, error: LogUnavailableError) -> None:
        """Nothing leaves until the log can be written again (`ullage.tap.supervisor`)."""
        self.gate.trip(Failure.LOG_UNAVAILABLE, str(error))
