"""What becomes of connections to the server when something goes wrong: none is kept that should not be."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from ullage.errors import FaultError
from ullage.network.journal import WireJournal
from ullage.tap.failures import LogUnavailableError, UpstreamError
from ullage.tap.upstream.cap import LinkCap
from ullage.tap.upstream.connections import Address, Response, Timeouts, Upstream
from ullage.tap.upstream.exchange import Traffic

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Server:
    """Answers every request with the same bytes; counts connections, and those that the tap has ended."""

    def __init__(self, answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.opened = self.ended = 0
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await self._answer(writer)
        self.ended += 1
        writer.close()

    async def one_ended(self) -> None:
        """The first connection; raises TimeoutError."""
        async with asyncio.timeout(10):
            while not self.ended:
                await asyncio.sleep(0.01)


async def plainly(writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER)


@contextlib.asynccontextmanager
async def upstream_of(
    server: Server, cap: LinkCap | None = None, journal: WireJournal | None = None
) -> AsyncIterator[Upstream]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield Upstream(Address("127.0.0.1", port, "", tls=False), Timeouts(), cap, journal)


async def ask(upstream: Upstream, counter: int | None = None) -> bytes:
    async with upstream.get("/v1/models", Traffic(counter=counter)) as response:
        return await response.whole(1000)


async def until_closed(asked: contextlib.AbstractAsyncContextManager[Response], journal: WireJournal) -> None:
    async with asked as response:
        assert await response.whole(1000) == b"{}"
        journal.close()


def test_a_connection_is_used_again() -> None:
    async def run() -> None:
        server = Server(plainly)
        async with upstream_of(server) as upstream:
            assert [await ask(upstream) for _ in range(3)] == [b"{}"] * 3
            assert server.opened == 1
            upstream.close()
            await server.one_ended()

    asyncio.run(run())


def test_what_a_cap_holds_back_after_an_answer_ends_the_connection() -> None:
    """The answer has passed and is whole; more came with it, and waits for its turn."""

    async def and_more(writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"x" * 2000)

    async def run() -> None:
        server = Server(and_more)
        cap = LinkCap.make(1000.0, 10.0, time.monotonic)
        async with upstream_of(server, cap) as upstream:
            async with upstream.get("/v1/models", Traffic()) as response:
                assert await response.whole(1000) == b"{}"
                await asyncio.sleep(0.2)  # what follows has arrived, and may not pass for a second yet
            await server.one_ended()
            async with asyncio.timeout(30):
                assert await ask(upstream) == b"{}"
            assert server.opened == 2

    asyncio.run(run())


def test_a_journal_that_fails_at_the_end_leaves_no_connection_open(tmp_path: Path) -> None:
    """Every close of a connection is an entry; the first that fails must not keep the others open."""

    async def run() -> None:
        server = Server(plainly)
        journal = WireJournal(tmp_path / "wire.journal", "log")
        async with upstream_of(server, journal=journal) as upstream:
            asked = [upstream.get("/v1/models", Traffic(counter=number)) for number in range(3)]
            async with contextlib.AsyncExitStack() as together:
                for one in asked:
                    assert await (await together.enter_async_context(one)).whole(1000) == b"{}"
            assert server.opened == 3
            good, journal._descriptor = journal._descriptor, os.open("/dev/full", os.O_WRONLY)
            os.close(good)
            with pytest.raises(FaultError):
                upstream.close()
            async with asyncio.timeout(10):
                while server.ended < 3:
                    await asyncio.sleep(0.01)
            assert journal._descriptor == -1

    asyncio.run(run())


@pytest.mark.parametrize("when", ["connected", "answered"])
def test_a_journal_that_fails_ends_the_connection(tmp_path: Path, when: str) -> None:
    async def run() -> None:
        server = Server(plainly)
        journal = WireJournal(tmp_path / "wire.journal", "log")
        async with upstream_of(server, journal=journal) as upstream:
            if when == "connected":
                journal.close()
            asked = upstream.get("/v1/models", Traffic(counter=1))
            with pytest.raises(LogUnavailableError):
                await until_closed(asked, journal)
            await server.one_ended()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EMFILE, LogUnavailableError), (errno.ECONNREFUSED, UpstreamError)]
)
def test_who_has_no_file_left_says_so_and_blames_nobody(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    async def ask() -> None:
        async def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refuse)
        async with upstream_of(Server(plainly)) as upstream, upstream.post("/", b"", Traffic(), stream=False):
            pass

    with pytest.raises(kind) as raised:
        asyncio.run(ask())
    assert ("LimitNOFILE" in str(raised.value)) == (kind is LogUnavailableError)
