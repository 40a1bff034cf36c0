"""Serving an application on a socket until it is told to stop."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from typing import Any

import uvicorn

from ullage.errors import UsageError

_GRACE_SECONDS = 5


class _Server(uvicorn.Server):
    """Says where it listens once the socket accepts, so that a caller can wait for that line."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and sockets:
            sys.stdout.write(f"listening on http://{address_text(sockets[0])}\n")
            sys.stdout.flush()


def serve(app: Any, host: str, port: int) -> None:
    """Serve `app` until SIGTERM or SIGINT; requests in flight get a few seconds to end.

    Port 0 takes a free one; the line `listening on http://HOST:PORT` names it. Raises UsageError when the
    address cannot be bound.
    """
    serve_on(app, bind(host, port))


def serve_on(app: Any, listener: socket.socket) -> None:
    """`serve` at a socket that is bound already; closes it at the end."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        lifespan="on",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
        date_header=False,  # nobody asks, and on a metered link every byte should follow from the answer
    )
    # uvicorn raises the signal once more after it has shut down: let that be a clean end of the process.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with listener:
        _Server(config).run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the address but does not accept yet. Raises UsageError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        said = (isinstance(error, OSError) and error.strerror) or error
        raise UsageError(f"Cannot listen on {host}:{port}: {said}; choose another --listen.") from error
    return listener


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` (an IPv6 host in brackets) to its parts. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"'{text}' is not HOST:PORT, for example 127.0.0.1:8000.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def address_text(listener: socket.socket) -> str:
    """`HOST:PORT` of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
