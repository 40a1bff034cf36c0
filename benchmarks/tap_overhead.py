"""What the tap costs: latency and requests a second, beside the bare upstream in the same run.

    python benchmarks/tap_overhead.py                      a stub upstream that answers at once
    python benchmarks/tap_overhead.py --upstream URL       a real server, with the model it serves

Upstream, tap and load are processes of their own; the load is a protocol of asyncio on uvloop (about 20 us a
request), since a general HTTP client is slower than what is measured. Rounds alternate between the two
targets, so that a noisy machine hits both.
Prints JSON. Latencies are in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from ullage.log.keys import Role, create_keys, load_verifier
from ullage.log.store import LogReader

_TOKEN = 10  # what the stub says, again and again
_LEAST_REQUESTS = 20  # in a round, however slow the machine is
_SKIPPED = 0.1  # share of each round that warms up


# --- the stub upstream ----------------------------------------------------------------------------


class _Stub(asyncio.Protocol):
    """Answers every completion with `max_tokens` tokens, at once."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self._answer(json.loads(rest[:length]))

    def _answer(self, request: dict[str, Any]) -> None:
        count = request["max_tokens"]
        if request.get("stream"):
            events = b"".join(
                b'data: {"choices":[{"index":0,"text":"x","token_ids":[%d]}]}\n\n' % _TOKEN
                for _ in range(count)
            )
            body, kind = events + b"data: [DONE]\n\n", b"text/event-stream"
        else:
            ids = ",".join([str(_TOKEN)] * count).encode()
            body = b'{"choices":[{"index":0,"text":"x","token_ids":[%s],"finish_reason":"length"}]}' % ids
            kind = b"application/json"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (kind, len(body))
        self.transport.write(head + body)


async def _serve_stub(host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Stub, host, port)
    print(f"listening on http://{host}:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


# --- the load -------------------------------------------------------------------------------------


class _Client(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer, until `end`, and notes how long it took.

    A protocol instead of streams, which cost the load several times as much processor time, on cores that
    the tap shares.
    """

    def __init__(self, request: bytes, begin: float, end: float, latencies: list[float]) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._request = request
        self._begin, self._end = begin, end
        self._latencies = latencies
        self._transport: asyncio.Transport
        self._asked = 0.0
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if not _is_whole(self._received):
            return
        if not self._received.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(SystemExit(f"unexpected answer: {self._received[:200]!r}"))
            return
        now = time.perf_counter()
        if self._asked >= self._begin:
            self._latencies.append((now - self._asked) * 1000)
        self._received = b""
        if now < self._end or len(self._latencies) < _LEAST_REQUESTS:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._request)


def _is_whole(received: bytes) -> bool:
    """Whether an answer, with a length or in chunks, has arrived to its end."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    _, has_length, rest = head.lower().partition(b"content-length:")
    if has_length:
        return len(body) >= int(rest.partition(b"\r\n")[0])
    return body.endswith(b"\r\n0\r\n\r\n")


async def _load(url: str, body: bytes, seconds: float, connections: int) -> dict[str, Any]:
    """Keep `connections` busy for a while; latencies in milliseconds, and requests a second."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    request = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    latencies: list[float] = []
    begin = time.perf_counter() + seconds * _SKIPPED
    end = begin + seconds

    loop = asyncio.get_running_loop()
    clients = [
        (
            await loop.create_connection(
                lambda: _Client(request, begin, end, latencies), parts.hostname, parts.port
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.done for client in clients))
    elapsed = time.perf_counter() - begin
    ordered = sorted(latencies)
    return {
        "requests": len(ordered),
        "requests_per_second": len(ordered) / elapsed,
        "median_ms": statistics.median(ordered),
        "p99_ms": ordered[int(len(ordered) * 0.99)],
    }


# --- the run --------------------------------------------------------------------------------------


def _start(arguments: Sequence[str]) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("listening on "):
        raise SystemExit(f"{' '.join(arguments[:3])} did not start")
    return process, line.split()[-1]


def _measure(url: str, body: dict[str, Any], seconds: float, connections: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--role", "load", "--url", url, "--body", json.dumps(body),
         "--seconds", str(seconds), "--connections", str(connections)],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _summary(rounds: list[dict[str, Any]]) -> dict[str, float]:
    return {
        key: round(statistics.median(one[key] for one in rounds), 3) for key in rounds[0] if key != "requests"
    }


def _compare(
    targets: tuple[str, str], name: str, body: dict[str, Any], options: argparse.Namespace, connections: int
) -> dict[str, Any]:
    bare, tap = targets
    direct = {**body, "return_token_ids": True, "seed": 1, "n": 1}
    measured: dict[str, list[dict[str, Any]]] = {"bare": [], "tap": []}
    for number in range(options.rounds):
        sys.stderr.write(f"{name}: round {number + 1} of {options.rounds}\n")
        measured["bare"].append(_measure(bare, direct, options.seconds, connections))
        measured["tap"].append(_measure(tap, body, options.seconds, connections))
    bare_summary, tap_summary = _summary(measured["bare"]), _summary(measured["tap"])
    return {
        "name": name,
        "connections": connections,
        "bare": bare_summary,
        "tap": tap_summary,
        "tap_requests": sum(one["requests"] for one in measured["tap"]),
        "added_median_ms": round(tap_summary["median_ms"] - bare_summary["median_ms"], 3),
        "throughput_ratio": round(
            tap_summary["requests_per_second"] / bare_summary["requests_per_second"], 3
        ),
    }


def _run(options: argparse.Namespace) -> dict[str, Any]:
    processes: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        keys, log = Path(folder) / "keys", Path(folder) / "log"
        create_keys(keys, Role.TAP)
        try:
            bare = options.upstream
            if bare is None:
                stub, bare = _start([__file__, "--role", "stub"])
                processes.append(stub)
            arguments = ["-m", "ullage", "tap", "--upstream", bare, "--log", str(log), "--keys", str(keys),
                         "--listen", "127.0.0.1:0"]  # fmt: skip
            arguments += ["--model", str(options.model)] if options.model else []
            tap, url = _start(arguments)
            processes.append(tap)
            body = {"prompt": list(range(10, 42)), "max_tokens": options.max_tokens, "temperature": 1.0}
            body |= {"model": options.upstream_model} if options.upstream_model else {}
            targets = (bare, url)
            results = [
                _compare(targets, "plain, one client", body, options, 1),
                _compare(targets, "plain, many clients", body, options, options.connections),
                _compare(targets, "stream, one client", {**body, "stream": True}, options, 1),
                _compare(
                    targets, "stream, many clients", {**body, "stream": True}, options, options.connections
                ),
            ]
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(30)
        findings = LogReader.open(log, load_verifier(keys / "log.pub")).verify()
        counted = sum(result["tap_requests"] for result in results)
        return {
            "benchmark": "tap_overhead",
            "machine": {
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "load": os.getloadavg()[0],
            },
            "upstream": "stub" if options.upstream is None else "given",
            "max_tokens": options.max_tokens,
            "results": results,
            "log": {"verdict": findings.verdict, "records": findings.closed, "answers_counted": counted},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="What the tap costs, beside the bare upstream.")
    parser.add_argument("--role", choices=["run", "stub", "load"], default="run", help=argparse.SUPPRESS)
    parser.add_argument("--host", default="127.0.0.1", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--body", help=argparse.SUPPRESS)
    parser.add_argument("--upstream", help="a real server instead of the stub")
    parser.add_argument("--upstream-model", help="the model's name at that server and at the tap")
    parser.add_argument("--model", type=Path, help="the declared model's folder; default: built in")
    parser.add_argument("--folder", type=Path, help="where the log is written, to choose its disk")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=16)
    options = parser.parse_args()
    if options.role == "stub":
        uvloop.run(_serve_stub(options.host, options.port))
    elif options.role == "load":
        result = uvloop.run(_load(options.url, options.body.encode(), options.seconds, options.connections))
        print(json.dumps(result))
    else:
        print(json.dumps(_run(options), indent=1))


if __name__ == "__main__":
    main()
