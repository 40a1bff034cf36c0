"""The enforcer's side of the socket: reads messages, keeps requests, answers in the order of computation."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from typing import Final

from ullage.enforce import protocol
from ullage.enforce.protocol import (
    CONNECTION,
    Abort,
    Answer,
    Begin,
    Check,
    Decode,
    ErrorCode,
    Finish,
    Finished,
    Hello,
    Refusal,
    ToEnforcer,
    ToTap,
    Welcome,
)
from ullage.enforce.reference import ChunkedReference
from ullage.enforce.scheduler import Job, Scheduler
from ullage.enforce.state import ReferenceState, Request, Step, Work
from ullage.enforce.worker import Worker
from ullage.errors import MalformedError, UsageError
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import Profile

_HELLO_SECONDS: Final = 10.0
_FRAME_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Limits:
    """`requests` open at once over all connections; `memory_positions` of keys and values in all."""

    requests: int = 2048
    memory_positions: int = 1 << 18
    connections: int = 8


class _Refused(Exception):  # noqa: N818 - carries a message of the protocol
    """The request, or the connection, ends with this error."""

    def __init__(self, code: ErrorCode, request: int = CONNECTION) -> None:
        super().__init__(code.sentence)
        self.refusal = Refusal(request, code)


class Service:
    """Requests of all connections. Whether one is admitted depends on how many are open, on nothing else."""

    def __init__(self, reference: ChunkedReference, profile: Profile, limits: Limits, threads: int) -> None:
        self.reference = reference
        self.profile = profile
        self.limits = limits
        self.worker = Worker(Scheduler(reference, limits.memory_positions), threads, self._fail)
        self.broken = asyncio.Event()  # nothing is computed any more
        self._loop: asyncio.AbstractEventLoop | None = None
        self.open_requests = 0
        self._connections = 0

    def start(self) -> None:
        """Begin to compute. To be called in the event loop that serves."""
        self._loop = asyncio.get_running_loop()
        self.worker.start()

    def _fail(self, error: Exception) -> None:
        sys.stderr.write(f"ullage enforcer: it cannot go on ({type(error).__name__}: {error})\n")
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.broken.set)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        self._connections += 1
        connection = _Connection(self, writer)
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                await connection.welcome(await _read(reader))
            while True:
                connection.take(await _read(reader))
                await writer.drain()  # who does not read answers is not read either
        except _Refused as refused:
            connection.send(refused.refusal)
        except MalformedError:
            connection.send(Refusal(CONNECTION, ErrorCode.MALFORMED))
        except (TimeoutError, EOFError, OSError):
            pass  # the tap is gone, or was never there
        finally:
            self._connections -= 1
            connection.end()
            writer.close()

    def welcome(self, hello: Hello) -> Welcome:
        """Whether tap and enforcer go together. Raises _Refused."""
        reference = self.reference
        if self._connections > self.limits.connections:
            raise _Refused(ErrorCode.FULL)
        model_digest, digest = _digest(reference.identity.digest), _digest(reference.digest)
        if hello.version != protocol.VERSION:
            raise _Refused(ErrorCode.VERSION)
        if hello.model_digest != model_digest:
            raise _Refused(ErrorCode.MODEL)
        if hello.profile != self.profile.name:
            raise _Refused(ErrorCode.PROFILE)
        if hello.reference_digest not in (protocol.ANY_REFERENCE, digest):
            raise _Refused(ErrorCode.REFERENCE)
        return Welcome(
            model_digest, digest, reference.chunk, reference.vocabulary_size, reference.context_length,
            self.limits.requests,
        )  # fmt: skip


@dataclass
class _Open:
    """A request of a connection; `job` is the work on it that has no answer yet."""

    state: ReferenceState
    job: Job | None = None


class _Connection:
    def __init__(self, service: Service, writer: asyncio.StreamWriter) -> None:
        self._service = service
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._requests: dict[int, _Open] = {}
        self._last = -1

    async def welcome(self, message: ToEnforcer) -> None:
        if not isinstance(message, Hello):
            raise MalformedError("A connection begins with hello.")
        self.send(self._service.welcome(message))
        await self._writer.drain()

    def take(self, message: ToEnforcer) -> None:
        """Act on one message. Raises _Refused and MalformedError where the connection ends with it."""
        try:
            self._act(message)
        except _Refused as refused:
            if refused.refusal.request == CONNECTION:
                raise
            self._drop(refused.refusal.request)
            self.send(refused.refusal)

    def _act(self, message: ToEnforcer) -> None:
        match message:
            case Hello():
                raise MalformedError("A connection has one hello.")
            case Begin():
                self._begin(message)
            case Check():
                if len(message.drafts) > self._service.reference.chunk:
                    raise MalformedError("More drafts than a chunk holds.")
                found = self._at(message.request, message.step)
                self._submit(message.request, found, found.state.check(message.drafts))
            case Decode():
                if message.count > self._service.reference.chunk:
                    raise MalformedError("More tokens than a chunk holds.")
                found = self._at(message.request, message.step)
                self._submit(message.request, found, found.state.decode(message.count))
            case Finish():
                found = self._find(message.request)
                state = found.state
                self._drop(message.request)
                self.send(Finished(message.request, len(state.output_ids), state.finish_reason))
            case Abort():
                if message.request in self._requests:
                    self._drop(message.request)

    def _begin(self, message: Begin) -> None:
        service = self._service
        if message.request <= self._last:
            raise MalformedError("Request numbers go up and are used once.")
        self._last = message.request
        if service.open_requests >= service.limits.requests:
            raise _Refused(ErrorCode.FULL, message.request)
        try:
            parameters = SamplingParameters(message.temperature, message.top_p, message.top_k)
            request = Request(message.prompt_ids, message.seed, parameters, message.max_tokens, message.stop)
            state = ReferenceState(service.reference, service.profile, request)
        except UsageError as error:
            raise _Refused(ErrorCode.IMPOSSIBLE, message.request) from error
        service.open_requests += 1
        self._requests[message.request] = _Open(state)

    def _find(self, number: int) -> _Open:
        if number not in self._requests:
            raise _Refused(ErrorCode.UNKNOWN, number)
        found = self._requests[number]
        if found.job is not None:
            raise MalformedError("A request has one check or decode at a time.")
        return found

    def _at(self, number: int, step: int) -> _Open:
        found = self._find(number)
        if len(found.state.output_ids) != step:
            raise _Refused(ErrorCode.STEP, number)
        return found

    def _submit(self, number: int, found: _Open, work: Work[Step]) -> None:
        def done(result: Step | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and all who waited with it
                self._loop.call_soon_threadsafe(self._answer, number, found, result)

        found.job = Job(found.state, work, done)
        self._service.worker.submit(found.job)

    def _answer(self, number: int, found: _Open, result: Step | Exception) -> None:
        if self._requests.get(number) is not found:
            return  # given up in the meantime
        found.job = None
        if isinstance(result, Step):
            step = len(found.state.output_ids)
            self.send(Answer(number, step, result.accepted, result.tokens, result.finish_reason))
            return
        sys.stderr.write(f"ullage enforcer: a request failed ({type(result).__name__}: {result})\n")
        self._drop(number)
        self.send(Refusal(number, ErrorCode.FAILED))

    def _drop(self, number: int) -> None:
        found = self._requests.pop(number, None)
        if found is None:
            return
        self._service.open_requests -= 1
        if found.job is not None:
            found.job.cancelled = True
        self._service.worker.release(found.state)

    def send(self, message: ToTap) -> None:
        if not self._writer.is_closing():
            self._writer.write(protocol.encode_answer(message, self._service.reference.chunk))

    def end(self) -> None:
        """Give up every request of the connection."""
        for number in list(self._requests):
            self._drop(number)


async def _read(reader: asyncio.StreamReader) -> ToEnforcer:
    """The next message. Raises MalformedError, EOFError, TimeoutError for a frame that stays incomplete."""
    first = await reader.readexactly(1)
    async with asyncio.timeout(_FRAME_SECONDS):
        header = first + await reader.readexactly(protocol.LENGTH_BYTES - 1)
        return protocol.parse_request(await reader.readexactly(protocol.frame_length(header)))


def _digest(text: str) -> bytes:
    """The bytes of a digest that is written `sha256:…`."""
    return bytes.fromhex(text.removeprefix("sha256:"))
