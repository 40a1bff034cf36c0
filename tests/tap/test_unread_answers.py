"""A client that does not take its answer keeps its connection for a while, and not for ever."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.server import ServerState

from ullage.tap.clients.call import Call
from ullage.tap.clients.http import ClientLimits, ClientProtocol

REQUEST = b"GET / HTTP/1.1\r\nhost: tap\r\n\r\n"


class _Impatient(ClientProtocol):
    limits = ClientLimits(unread_seconds=0.3)


@pytest.mark.parametrize("keeps", [True, False], ids=["kept alive", "closed after the answer"])
def test_a_connection_whose_last_bytes_nobody_takes_ends(keeps: bool) -> None:
    """What is left is too little for the transport to ask us to pause, so that nothing else would end it."""

    async def answer(call: Call) -> None:
        call.keeps_connection = keeps
        await call.send(200, b"x" * 50_000)

    async def left() -> int:
        state = ServerState()
        config: Any = SimpleNamespace(loaded_app=answer, timeout_keep_alive=0.3)
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        server = await asyncio.get_running_loop().create_server(
            lambda: _Impatient(config, state, {}), sock=listener
        )
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, listener.getsockname())
            await loop.sock_sendall(client, REQUEST)
            await asyncio.sleep(0.1)
            assert len(state.connections) == 1
            await asyncio.sleep(1.5)
            count = len(state.connections)
        server.close()
        return count

    assert asyncio.run(left()) == 0
