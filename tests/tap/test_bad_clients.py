"""Clients that do everything wrong: a clean 4xx or a closed connection, and the tap goes on."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tap.scripted_upstream import ScriptedUpstream
from tests.tap.tap_process import TapProcess

BODY = b'{"prompt": "a"}'
POST = b"POST /v1/completions HTTP/1.1\r\nhost: tap\r\n"


def _connect(tap: TapProcess) -> socket.socket:
    host, port = tap.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def _talk(tap: TapProcess, *pieces: bytes, pause: float = 0.0) -> bytes:
    """What comes back until the tap closes, or says nothing for a while."""
    received = b""
    with _connect(tap) as connection, contextlib.suppress(ConnectionError, TimeoutError):
        connection.settimeout(3)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        while data := connection.recv(65536):
            received += data
    return received


def _resident_bytes(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _is_clean(answer: bytes) -> bool:
    """Nothing, or a 4xx with the fixed head and an error of the list."""
    if not answer:
        return True
    head, _, body = answer.partition(b"\r\n\r\n")
    names = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    return (
        head.startswith(b"HTTP/1.1 4")
        and names <= {b"content-type", b"content-length", b"connection"}
        and body.startswith(b'{"error":{"message":"')
        and b"Traceback" not in body
    )


@pytest.fixture(autouse=True)
def _still_well(tap: TapProcess, upstream: ScriptedUpstream) -> Iterator[None]:
    yield
    assert httpx.get(f"{tap.url}/health").status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /v1/completions HTTP/1.0\r\ncontent-length: 15\r\n\r\n" + BODY,
        b"GET /v1/models HTTP/1.0\r\n\r\n",
        b"GET /v1/models HTTP/2.0\r\n\r\n",
        b"GET /v1/models\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS to a plain port
        b"\x00" * 100 + b"\r\n\r\n",
        POST + b"content-length: 15\r\ncontent-length: 16\r\n\r\n" + BODY,
        POST + b"content-length: 15\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + BODY,
        POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\nf;" + b"x" * 70_000 + b"\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
        POST + b"content-length: 99999999999999999999\r\n\r\n",
        POST + b"content-length: 1e3\r\n\r\n" + BODY,
        POST + b"content-length : 15\r\n\r\n" + BODY,
        POST + b"x\x00y: z\r\ncontent-length: 15\r\n\r\n" + BODY,
        POST + b" folded: header\r\ncontent-length: 15\r\n\r\n" + BODY,
        b"POST http://[ HTTP/1.1\r\nhost: tap\r\n\r\n",
        b"GET /%ff%fe%00 HTTP/1.1\r\nhost: tap\r\nconnection: close\r\n\r\n",
        b"GET /" + b"%2e%2e/" * 500 + b" HTTP/1.1\r\nhost: tap\r\nconnection: close\r\n\r\n",
        b"CONNECT evil:443 HTTP/1.1\r\nhost: evil\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: tap\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n",
    ],
)
def test_what_is_no_request(tap: TapProcess, request_bytes: bytes) -> None:
    assert _is_clean(_talk(tap, request_bytes))


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe\xfd", b'{"prompt": "\xc3\x28"}', b'{"prompt": "\\ud800"}', b'{"prompt": "a"', b"\x00" * 50],
)
def test_bodies_in_broken_utf8(tap: TapProcess, body: bytes) -> None:
    answer = _talk(tap, POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert _is_clean(answer)


def test_a_hundred_thousand_header_lines(tap: TapProcess) -> None:
    began = time.monotonic()
    assert _is_clean(_talk(tap, POST + b"".join(b"x-%d: y\r\n" % line for line in range(100_000))))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_a_gigabyte(tap: TapProcess, chunked: bool) -> None:
    """Sent as fast as it is taken: refused after a megabyte, without the memory for it."""
    assert tap.process is not None
    before = _resident_bytes(tap.process.pid)
    sent, piece = 0, b"x" * (1 << 20)
    with _connect(tap) as connection, contextlib.suppress(ConnectionError):
        head = b"transfer-encoding: chunked\r\n\r\n" if chunked else b"content-length: 1073741824\r\n\r\n"
        connection.sendall(POST + head)
        while sent < 1 << 30:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            sent += len(piece)
    assert sent < 64 << 20
    assert _resident_bytes(tap.process.pid) - before < 32 << 20


def test_slowloris_keeps_nobody_out(tap: TapProcess) -> None:
    """Many connections that dribble a head: others are served at once, and these are cut off."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(_connect(tap)) for _ in range(200)]
        for connection in slow:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nx-slow: ")
        began = time.monotonic()
        assert httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"}).status_code == 200
        assert time.monotonic() - began < 1.5
        deadline = time.monotonic() + 6
        for connection in slow:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            with contextlib.suppress(ConnectionError):
                while connection.recv(4096):
                    pass


def test_clients_that_do_not_read(tmp_path: Path) -> None:
    """An answer that nobody takes is dropped after a while; its memory is bounded by the kernel's buffers."""
    with (
        ScriptedUpstream() as upstream,
        TapProcess(tmp_path, upstream.url, limits={"unread_seconds": 1.0}) as tap,
    ):
        with _connect(tap) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            request = POST + b"content-length: 15\r\n\r\n" + BODY
            with contextlib.suppress(ConnectionError, TimeoutError):
                connection.settimeout(4)
                for _ in range(20_000):
                    connection.sendall(request)
        assert httpx.get(f"{tap.url}/health").status_code == 200
        assert tap.stop()[0] == 0
        tap.assert_sound()


@given(st.lists(st.binary(max_size=200), max_size=6))
@settings(max_examples=40, deadline=None)
def test_any_bytes(tap: TapProcess, pieces: list[bytes]) -> None:
    with _connect(tap) as connection, contextlib.suppress(ConnectionError):
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        connection.settimeout(5)
        with contextlib.suppress(OSError):  # it may have been cut off already
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            while data := connection.recv(65536):
                received += data
        assert _is_clean(received)


@pytest.mark.parametrize("opening", [b"0\r\nx-filler: ", b"1;"], ids=["trailer", "extension"])
def test_framing_without_end_is_refused(tap: TapProcess, opening: bytes) -> None:
    """At once, and not when the body's time is over: the parser keeps all of a trailer until it ends."""
    head = POST + b"transfer-encoding: chunked\r\n\r\n"
    answer = _talk(tap, head + b"1\r\n{\r\n" + opening, *[b"a" * 20_000] * 3, pause=0.05)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert _is_clean(answer)
