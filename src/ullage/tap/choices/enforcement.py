"""The tap's end of the socket to the enforcer: one connection, many requests.

Whatever goes wrong here ends in an EnforcerError and nothing is released: without a reference there is no
token. A lost connection is made anew by the next request; requests that were open on it fail.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ullage.enforce import protocol
from ullage.enforce.protocol import (
    CONNECTION,
    Abort,
    Answer,
    Begin,
    Check,
    Decode,
    Finish,
    FinishReason,
    Hello,
    Refusal,
    ToEnforcer,
    ToTap,
    Welcome,
)
from ullage.errors import FaultError, MalformedError, UllageError, UsageError
from ullage.tap.tell import tell_operator

_HELLO_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 600.0  # all requests at once may stand before this one


class EnforcerError(FaultError):
    """The enforcer is gone, or does not do what the protocol says."""


class EnforcerClient:
    """The way to the enforcer. `connect` makes one; a lost connection is made anew by the next request."""

    def __init__(self, path: Path, hello: Hello, tell: Callable[[str], None] = tell_operator) -> None:
        self._path = path
        self._hello = hello
        self._tell = tell
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        # Never begun anew: what a request of a lost connection still says must not meet another request.
        self._numbers = itertools.count()
        self._welcome: Welcome | None = None
        self._failed: tuple[float, str] = (0.0, "")  # when the last attempt to connect failed, and why
        self._closed = False

    @classmethod
    async def connect(
        cls,
        path: Path,
        model_digest: str,
        profile: str,
        reference_digest: str | None = None,
        tell: Callable[[str], None] = tell_operator,
    ) -> EnforcerClient:
        """Connect and check that the enforcer runs what is declared. Digests are written `sha256:…`.

        Raises UsageError when it runs something else, EnforcerError when there is none.
        """
        wanted = _digest(reference_digest) if reference_digest else protocol.ANY_REFERENCE
        client = cls(path, Hello(_digest(model_digest), profile, wanted), tell)
        await client._connect()
        return client

    @property
    def welcome(self) -> Welcome:
        """What the enforcer said of itself."""
        assert self._welcome is not None  # noqa: S101 - `connect` is the only way to an instance in use
        return self._welcome

    async def begin(
        self,
        prompt_ids: Sequence[int],
        *,
        seed: int,
        temperature: float,
        top_p: float,
        top_k: int,
        max_tokens: int,
        stop: Sequence[str] = (),
    ) -> EnforcedRequest:
        """Open a request; waits while the enforcer has as many as it keeps, first come, first served.

        Raises EnforcerError.
        """
        connection = await self._enter()
        number = next(self._numbers)
        try:
            connection.send(
                Begin(
                    number, seed, temperature, top_p, top_k, max_tokens, tuple(prompt_ids), tuple(stop)
                )
            )  # fmt: skip
        except UllageError as error:
            connection.room.release()
            raise EnforcerError(str(error)) from error
        return EnforcedRequest(connection, number, len(prompt_ids), self.welcome.chunk)

    async def answers(self, patience: float) -> bool:
        """Whether the enforcer says anything to a greeting of its own. `patience` in seconds."""
        greeting = asyncio.ensure_future(self._greet())
        try:
            await asyncio.wait([greeting], timeout=patience)
            await asyncio.sleep(0)  # an answer that is there counts, however late this loop looks
            return greeting.done() and greeting.result()
        finally:
            greeting.cancel()

    async def _greet(self) -> bool:
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._path))
            writer.write(protocol.encode_request(self._hello))
            await _read(reader)
        except (OSError, EOFError, MalformedError):
            return False
        finally:
            _end(writer)
        return True

    async def close(self) -> None:
        """End the connection; requests that are open fail."""
        self._closed = True
        if self._connection is not None:
            await self._connection.close()

    async def _enter(self) -> _Connection:
        """The connection in use, with a place in it taken. Raises EnforcerError."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        while True:
            async with self._connecting:
                if self._connection is None:
                    at, why = self._failed
                    if at > begun:  # whoever stood before this request has just found nobody
                        raise EnforcerError(why)
                    await self._reconnect()
            connection = self._connection
            if connection is None:
                continue  # lost again before this request had its turn
            await connection.room.acquire()
            if connection is self._connection:
                return connection
            connection.room.release()  # lost while this request waited; whoever waits behind hears of it too

    async def _reconnect(self) -> None:
        try:
            await self._connect()
        except (EnforcerError, UsageError) as error:  # nobody, or another enforcer than at the start
            self._failed = (asyncio.get_running_loop().time(), str(error))
            raise EnforcerError(str(error)) from error
        self._tell("the enforcer is back")

    async def _connect(self) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                writer.write(protocol.encode_request(self._hello))
                answer = await _read(reader)
            self._welcome = self._checked(answer)
        except (OSError, TimeoutError, EOFError, MalformedError) as error:
            _end(writer)
            raise EnforcerError(
                f"No enforcer answers at {self._path}; start `ullage enforcer --socket {self._path}` first."
            ) from error
        except BaseException:  # a client that hangs up meanwhile cancels this, too
            _end(writer)
            raise
        connection = _Connection(writer, self._welcome.requests)
        self._connection = connection
        connection.listener = asyncio.ensure_future(self._listen(connection, reader))

    def _checked(self, answer: ToTap) -> Welcome:
        """What answers, if it is the declared enforcer and the one from before. Raises UsageError."""
        if isinstance(answer, Refusal):
            raise UsageError(f"The enforcer at {self._path} cannot be used: {answer.code.sentence}.")
        if not isinstance(answer, Welcome) or answer.version != protocol.VERSION:
            raise UsageError(f"What answers at {self._path} is no enforcer of this version.")
        wanted = self._hello.reference_digest
        if answer.model_digest != self._hello.model_digest:
            raise UsageError(f"The enforcer at {self._path} runs another model than the one declared.")
        if wanted not in (protocol.ANY_REFERENCE, answer.reference_digest):
            raise UsageError(f"The enforcer at {self._path} runs another reference than the one declared.")
        if self._welcome is not None and _rule(answer) != _rule(self._welcome):
            raise UsageError(f"What answers at {self._path} is not the enforcer that was there before.")
        return answer

    async def _listen(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        reason = "it ended the connection"
        try:
            while True:
                message = await _read(reader)
                if isinstance(message, Welcome) or message.request == CONNECTION:
                    reason = message.code.sentence if isinstance(message, Refusal) else "a second welcome"
                    break
                connection.answered(message)
        except (OSError, EOFError):
            pass
        except MalformedError as error:
            reason = str(error)
        finally:
            if self._connection is connection:
                self._connection = None
                if not self._closed:
                    self._tell(f"the enforcer is lost ({reason}): nothing is released until it is back")
            connection.lose(reason)


class _Connection:
    """One connection. `room` has a place for every request that the enforcer keeps."""

    def __init__(self, writer: asyncio.StreamWriter, places: int) -> None:
        self.room = asyncio.Semaphore(places)
        self.listener: asyncio.Task[None] | None = None
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[ToTap]] = {}
        self._lost = ""

    def send(self, message: ToEnforcer) -> None:
        if self._lost or self._writer.is_closing():
            raise EnforcerError(f"The enforcer is lost: {self._lost or 'the connection is closing'}.")
        self._writer.write(protocol.encode_request(message))

    async def ask(self, message: Check | Decode | Finish) -> ToTap:
        """Send a message and wait for its answer. Raises EnforcerError."""
        future: asyncio.Future[ToTap] = asyncio.get_running_loop().create_future()
        self._waiting[message.request] = future
        try:
            self.send(message)
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await future
        except TimeoutError as error:
            raise EnforcerError("The enforcer did not answer in time.") from error
        finally:
            if self._waiting.get(message.request) is future:
                del self._waiting[message.request]
        if isinstance(answer, Refusal):
            raise EnforcerError(f"The enforcer refused: {answer.code.sentence}.")
        return answer

    def answered(self, message: Answer | Refusal | ToTap) -> None:
        """Hand an answer to whoever waits for it; one that nobody waits for was given up."""
        assert not isinstance(message, Welcome)  # noqa: S101 - the listener ends at one
        future = self._waiting.pop(message.request, None)
        if future is not None and not future.done():
            future.set_result(message)

    def abort(self, number: int) -> None:
        """Give a request up; nothing is said when the connection is gone."""
        if not self._lost and not self._writer.is_closing():
            self.send(Abort(number))

    def lose(self, reason: str) -> None:
        """The connection is over: everybody who waits for an answer hears of it."""
        self._lost = self._lost or reason
        self._writer.close()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(EnforcerError(f"The enforcer is lost: {reason}."))

    async def close(self) -> None:
        if self.listener is not None:
            self.listener.cancel()
            await asyncio.gather(self.listener, return_exceptions=True)


class EnforcedRequest:
    """One request at the enforcer. `close` must be called when it is done or given up."""

    def __init__(self, connection: _Connection, number: int, prompt_length: int, chunk: int) -> None:
        self._connection = connection
        self._number = number
        self._prompt_length = prompt_length
        self._closed = False
        self.chunk = chunk
        self.step = 0
        self.finish_reason: FinishReason | None = None

    @property
    def span(self) -> int:
        """How many drafts fill the current chunk: checking so many at once costs the enforcer least."""
        return self.chunk - (self._prompt_length + self.step - 1) % self.chunk

    async def check(self, drafts: Sequence[int]) -> Answer:
        """At most `chunk` drafts for the next positions. Raises EnforcerError."""
        # A draft is a number from the server; one that no u32 holds is as wrong as any other.
        valid = tuple(draft if 0 <= draft < 1 << 32 else (1 << 32) - 1 for draft in drafts)
        return self._take(await self._connection.ask(Check(self._number, self.step, valid)), len(valid))

    async def decode(self, count: int) -> Answer:
        """Let the reference decode alone, at most `chunk` tokens. Raises EnforcerError."""
        return self._take(await self._connection.ask(Decode(self._number, self.step, count)), count)

    def close(self) -> None:
        """Let the request go. Idempotent."""
        if not self._closed:
            self._closed = True
            self._connection.room.release()
            self._connection.abort(self._number)

    def _take(self, answer: ToTap, most: int) -> Answer:
        if not isinstance(answer, Answer) or answer.step != self.step + len(answer.tokens):
            raise EnforcerError("The enforcer's answer is out of step.")
        if len(answer.tokens) > most or not (answer.tokens or answer.finish_reason):
            raise EnforcerError("The enforcer's answer holds more tokens than were asked for, or none.")
        self.step = answer.step
        self.finish_reason = answer.finish_reason
        return answer


def _rule(welcome: Welcome) -> tuple[object, ...]:
    """What of a welcome may not change while a tap runs; how many requests are kept may."""
    numbers = (welcome.chunk, welcome.vocabulary_size, welcome.context_length)
    return (welcome.model_digest, welcome.reference_digest, *numbers)


def _end(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        writer.close()


async def _read(reader: asyncio.StreamReader) -> ToTap:
    length = protocol.frame_length(await reader.readexactly(protocol.LENGTH_BYTES))
    return protocol.parse_answer(await reader.readexactly(length))


def _digest(text: str) -> bytes:
    """The bytes of a digest that is written `sha256:…`. Raises UsageError."""
    try:
        digest = bytes.fromhex(text.removeprefix("sha256:"))
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise UsageError(f"'{text[:80]}' is not a digest, which is sha256: and 64 hexadecimal digits.")
    return digest
