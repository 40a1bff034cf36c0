"""A server whose every answer a test scripts, in a thread with its own event loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.tap.small_tokenizer import EOS, small_tokenizer

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"


@dataclass
class Exchange:
    """One request that the upstream got, and the ways to answer it."""

    body: dict[str, Any]
    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def whole(self, data: bytes, content_type: bytes = b"application/json") -> None:
        await self.raw(_HEAD % content_type + b"content-length: %d\r\n\r\n" % len(data) + data)

    async def begin(self) -> None:
        await self.raw(_HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n")

    async def piece(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, ids: list[int], **extra: Any) -> None:
        event = {"choices": [{"index": 0, "text": "x", "token_ids": ids}], **extra}
        await self.piece(b"data: " + json.dumps(event).encode() + b"\n\n")

    async def end(self) -> None:
        await self.piece(b"data: [DONE]\n\n")
        await self.raw(b"0\r\n\r\n")

    async def answer(self, ids: list[int], **extra: Any) -> None:
        """An answer of the kind that was asked for, with these tokens."""
        if self.body["stream"]:
            await self.begin()
            for token in ids:
                await self.event([token], **extra)
            await self.end()
        else:
            choice = {"index": 0, "text": "anything", "token_ids": ids, "finish_reason": "nonsense"}
            await self.whole(json.dumps({"id": "x", "choices": [choice], **extra}).encode())

    async def until_closed(self) -> None:
        """Wait until the tap has closed the connection."""
        while await self.reader.read(1024):
            pass


Behaviour = Callable[[Exchange], Awaitable[None]]


def text_ids(text: str) -> list[int]:
    return small_tokenizer().encode(text)


async def greet(exchange: Exchange) -> None:
    """The honest server: a greeting and EOS, cut at max_tokens and after a stop string."""
    text = "Hello, wörld! Good day."
    ids = [*text_ids(text), EOS]
    for stop in exchange.body.get("stop", []):
        if stop in text:
            ids = text_ids(text[: text.index(stop) + len(stop)])
    await exchange.answer(ids[: exchange.body["max_tokens"]], system_fingerprint="scripted-1")


class ScriptedUpstream:
    """Use as a context manager; set `behaviour` at any time."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = greet
        self.requests: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> int:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                self.requests.append(body)
                self.heads.append(head)
                await self.behaviour(Exchange(body, head, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
