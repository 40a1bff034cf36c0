"""Connections of a machine that may vanish."""

from __future__ import annotations

import socket
from typing import Final

LOST_SECONDS: Final = 30
"""A machine that answers nothing for so long, not even the kernel's probes, has gone without a word."""
_PROBES = 4


def break_when_lost(connection: socket.socket) -> None:
    """Have a TCP connection break when the other machine has been gone for `LOST_SECONDS`.

    Nothing else says so to who waits: a cut cable or a dead machine sends no end of the stream.
    """
    pause = LOST_SECONDS // (_PROBES + 2)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        (socket.TCP_KEEPIDLE, LOST_SECONDS - _PROBES * pause),
        (socket.TCP_KEEPINTVL, pause),
        (socket.TCP_KEEPCNT, _PROBES),
        (socket.TCP_USER_TIMEOUT, LOST_SECONDS * 1000),  # for what was sent and never acknowledged
    ):
        connection.setsockopt(socket.IPPROTO_TCP, name, value)
