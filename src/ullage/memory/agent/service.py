"""Running an agent as a process, or as a thread of a server."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

from ullage.errors import UsageError
from ullage.memory.agent.agent import Agent, Host
from ullage.memory.agent.inventory import Inventory, take
from ullage.memory.agent.keeper import Keeper


@dataclass(frozen=True)
class Settings:
    """`limit` and `reserve` in bytes; None for the defaults of `inventory.take`."""

    listen: str
    machine: str
    limit: int | None = None
    reserve: int | None = None
    threads: int | None = None

    def look(self, mapped: int = 0) -> Inventory:
        """The machine now, where so much is mapped already."""
        return take(self.machine, self.limit, self.reserve, mapped)


def bind(address: str) -> socket.socket:
    """A listener at HOST:PORT. Raises UsageError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"'{address}' is not HOST:PORT, for example 127.0.0.1:8400.")
    try:
        return socket.create_server((host.removeprefix("[").removesuffix("]"), int(port)))
    except OSError as error:
        said = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UsageError(f"Cannot listen on {address}: {said}; choose another address.") from error


def build(settings: Settings, host: Host | None = None) -> Agent:
    """An honest agent of this machine. Raises UsageError when nothing can be mapped."""
    seen = settings.look()
    if not seen.reachable:
        raise UsageError("No memory is free for the agent; lower --reserve-mib, or end something else.")
    limits = (seen.reachable, *(size for _, size in seen.devices))
    keeper = Keeper(limits, tuple(name for name, _ in seen.devices), settings.threads)
    return Agent(keeper, lambda: settings.look(keeper.mapped(0)), host)


def attach(settings: Settings, host: Host) -> None:
    """Serve verifiers from a thread of the process that `host` is. Returns once it listens."""
    listener = bind(settings.listen)
    agent = build(settings, host)
    threading.Thread(target=agent.serve, args=(listener,), name="memory-agent", daemon=True).start()
    address, port = listener.getsockname()[:2]
    sys.stderr.write(f"memory agent at {address}:{port}\n")


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    listener = bind(settings.listen)
    serve(build(settings), listener)


def serve(agent: Agent, listener: socket.socket) -> None:
    """Say where, then serve until SIGTERM or SIGINT closes the listener."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)

    def close(*_: object) -> None:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()

    signal.signal(signal.SIGTERM, close)
    signal.signal(signal.SIGINT, close)
    host, port = listener.getsockname()[:2]
    sys.stdout.write(f"listening on {host}:{port}\n")
    sys.stdout.flush()
    agent.serve(listener)
