"""Connections break when the other machine has vanished, wherever one is accepted."""

from __future__ import annotations

import contextlib
import socket
import threading

from ullage.memory.agent.agent import Agent
from ullage.memory.agent.keeper import Keeper
from ullage.redteam.memory.cheat import plain_inventory
from ullage.sockets import LOST_SECONDS, break_when_lost
from ullage.work.agent import accept, listen


def breaks_when_lost(connection: socket.socket) -> bool:
    option = connection.getsockopt
    idle, pause, probes = (
        option(socket.IPPROTO_TCP, name)
        for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    return (
        option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        and min(idle, pause, probes) > 1
        and idle + pause * probes == LOST_SECONDS
        and option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * LOST_SECONDS
    )


def test_a_plain_connection_does_not_and_one_that_was_told_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert not breaks_when_lost(connection)
            break_when_lost(connection)
            assert breaks_when_lost(connection)


def test_the_work_agents_do() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        stream = accept(listener)
        assert breaks_when_lost(stream._connection)
        stream.close()


def test_the_memory_agents_do() -> None:
    met: list[socket.socket] = []
    came = threading.Event()

    class Meeting(Agent):
        def _meet(self, peer: socket.socket) -> None:
            met.append(peer)
            came.set()

    agent = Meeting(Keeper((1 << 20,), threads=1), plain_inventory(1 << 20))
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=agent.serve, args=(listener,), daemon=True).start()
    with socket.create_connection(listener.getsockname()):
        assert came.wait(20)
        assert breaks_when_lost(met[0])
    met[0].close()
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
