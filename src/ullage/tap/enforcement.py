"""The tap's end of the socket to the enforcer: one connection, many requests.

Whatever goes wrong here ends in a FaultError and nothing is released: without a reference there is no token.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
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
from ullage.errors import FaultError, MalformedError, UsageError

_HELLO_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 600.0  # all requests at once may stand before this one


class EnforcerError(FaultError):
    """The enforcer is gone, or does not do what the protocol says."""


class EnforcerClient:
    """One connection to the enforcer. `connect` makes it; a lost one is made anew by the next request."""

    def __init__(self, path: Path, hello: Hello) -> None:
        self._path = path
        self._hello = hello
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[ToTap]] = {}
        self._connecting = asyncio.Lock()
        self._room: asyncio.Semaphore | None = None
        self._welcome: Welcome | None = None

    @classmethod
    async def connect(
        cls, path: Path, model_digest: str, profile: str, reference_digest: str | None = None
    ) -> EnforcerClient:
        """Connect and check that the enforcer runs what is declared. Digests are written `sha256:…`.

        Raises UsageError when it runs something else, EnforcerError when there is none.
        """
        wanted = _digest(reference_digest) if reference_digest else protocol.ANY_REFERENCE
        client = cls(path, Hello(_digest(model_digest), profile, wanted))
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
        """Open a request; waits while the enforcer has as many as it keeps, first come, first served."""
        async with self._connecting:
            if self._writer is None:
                await self._connect()
        assert self._room is not None  # noqa: S101 - set with the connection
        await self._room.acquire()
        number = next(self._numbers)
        request = EnforcedRequest(self, number, len(prompt_ids), self._room)
        try:
            self._send(
                Begin(
                    number, seed, temperature, top_p, top_k, max_tokens, tuple(prompt_ids), tuple(stop)
                )
            )  # fmt: skip
        except BaseException:
            self._room.release()
            raise
        return request

    async def close(self) -> None:
        """End the connection; requests that are open fail."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        self._lose("the connection to the enforcer was closed")

    async def ask(self, message: Check | Decode | Finish) -> ToTap:
        """Send a message and wait for its answer. Raises EnforcerError."""
        future: asyncio.Future[ToTap] = asyncio.get_running_loop().create_future()
        self._waiting[message.request] = future
        try:
            self._send(message)
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

    def abort(self, number: int) -> None:
        """Give a request up; nothing is said when the connection is gone."""
        if self._writer is not None and not self._writer.is_closing():
            self._send(Abort(number))

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                writer.write(protocol.encode_request(self._hello))
                answer = await _read(reader)
        except (OSError, TimeoutError, EOFError) as error:
            raise EnforcerError(
                f"No enforcer answers at {self._path}; start `ullage enforcer --socket {self._path}` first."
            ) from error
        if isinstance(answer, Refusal):
            writer.close()
            raise UsageError(f"The enforcer at {self._path} cannot be used: {answer.code.sentence}.")
        known = self._welcome
        if not isinstance(answer, Welcome) or (known is not None and answer != known):
            writer.close()
            raise UsageError(f"What answers at {self._path} is not the enforcer that was there before.")
        if answer.model_digest != self._hello.model_digest or answer.version != protocol.VERSION:
            writer.close()
            raise UsageError(f"The enforcer at {self._path} runs another model than the one declared.")
        self._welcome = answer
        self._room = asyncio.Semaphore(answer.requests)
        self._writer = writer
        self._numbers = itertools.count()
        self._listener = asyncio.ensure_future(self._listen(reader, writer))

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reason = "the enforcer ended the connection"
        try:
            while True:
                message = await _read(reader)
                if isinstance(message, Welcome) or message.request == CONNECTION:
                    reason = message.code.sentence if isinstance(message, Refusal) else "a second welcome"
                    break
                future = self._waiting.pop(message.request, None)
                if future is not None and not future.done():
                    future.set_result(message)
        except (OSError, EOFError):
            pass
        except MalformedError as error:
            reason = str(error)
        finally:
            writer.close()
            if self._writer is writer:
                self._lose(reason)

    def _lose(self, reason: str) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(EnforcerError(f"The enforcer is lost: {reason}."))

    def _send(self, message: ToEnforcer) -> None:
        if self._writer is None or self._writer.is_closing():
            raise EnforcerError("The connection to the enforcer is lost.")
        self._writer.write(protocol.encode_request(message))


class EnforcedRequest:
    """One request at the enforcer. `close` must be called when it is done or given up."""

    def __init__(
        self, client: EnforcerClient, number: int, prompt_length: int, room: asyncio.Semaphore
    ) -> None:
        self._client = client
        self._number = number
        self._prompt_length = prompt_length
        self._room = room
        self._closed = False
        self.chunk = client.welcome.chunk
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
        return self._take(await self._client.ask(Check(self._number, self.step, valid)))

    async def decode(self, count: int) -> Answer:
        """Let the reference decode alone, at most `chunk` tokens. Raises EnforcerError."""
        return self._take(await self._client.ask(Decode(self._number, self.step, count)))

    def close(self) -> None:
        """Let the request go. Idempotent."""
        if not self._closed:
            self._closed = True
            self._room.release()
            self._client.abort(self._number)

    def _take(self, answer: ToTap) -> Answer:
        if not isinstance(answer, Answer) or answer.step != self.step + len(answer.tokens):
            raise EnforcerError("The enforcer's answer is out of step.")
        if not answer.tokens and answer.finish_reason is None:
            raise EnforcerError("The enforcer's answer holds no token.")
        self.step = answer.step
        self.finish_reason = answer.finish_reason
        return answer


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
