"""Web servers that try to hold up, flood or misdirect whoever reads a log from them. Run as a script."""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self) -> None:
        KINDS[sys.argv[1]](self)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


def endless(handler: Handler) -> None:
    handler.head(200, Connection="close")
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        return


def drip(handler: Handler) -> None:
    handler.head(200, Connection="close")
    try:
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.05)
    except OSError:
        return


def drip_head(handler: Handler) -> None:
    """A head without an end, a byte now and then: every one of them comes in time."""
    try:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-head: ")
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.05)
    except OSError:
        return


@cache
def zeros() -> bytes:
    """50 MiB of them, compressed."""
    return gzip.compress(bytes(50 << 20))


def bomb(handler: Handler) -> None:
    data = zeros()
    handler.head(200, Content_Encoding="gzip", Content_Length=str(len(data)))
    handler.wfile.write(data)


def not_gzip(handler: Handler) -> None:
    handler.head(200, Content_Encoding="gzip", Content_Length="5")
    handler.wfile.write(b"hello")


def redirect(handler: Handler) -> None:
    handler.head(302, Location="file:///etc/passwd", Content_Length="0")


def forbidden(handler: Handler) -> None:
    handler.head(403, Content_Length="0")


def stumbling(handler: Handler) -> None:
    Handler.asked += 1
    if Handler.asked < 3:
        handler.head(503, Content_Length="0")
        return
    handler.head(200, Content_Length="5")
    handler.wfile.write(b"hello")


def broken(handler: Handler) -> None:
    handler.head(500, Content_Length="0")


def short(handler: Handler) -> None:
    handler.head(200, Content_Length="100", Connection="close")
    handler.wfile.write(b"hello")


def nothing(handler: Handler) -> None:
    handler.head(404, Content_Length="0")


KINDS: dict[str, Callable[[Handler], None]] = {
    kind.__name__: kind
    for kind in (
        endless,
        drip,
        drip_head,
        bomb,
        not_gzip,
        redirect,
        forbidden,
        stumbling,
        broken,
        short,
        nothing,
    )
}

if __name__ == "__main__":
    zeros()  # made before anybody waits for it
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
