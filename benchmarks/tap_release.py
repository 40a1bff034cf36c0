"""The price of slots, length buckets and the link's forms: latency and bytes, and what a link carries.

    python benchmarks/tap_release.py

A server that makes tokens at a steady rate stands behind taps of several settings; every setting answers the
same requests. Then 6,000 prompt tokens and 600 output tokens a second pass a tap with a cap of 100 KB/s each
way. Bytes on the link are HTTP; `wire` adds 66 bytes of Ethernet, IP and TCP for each segment and
acknowledgement. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tap_load import _Processes, _records
from ullage.log.keys import Role, create_keys, load_verifier
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader

_LIMIT = 100_000  # bytes a second each way
_SEGMENT = 1448
_HEADER = 66
_SLOTS = ["--slot", "250ms", "--slot-tokens", "32"]
_PAD = ["--pad-to", "64"]
SETTINGS: dict[str, list[str]] = {
    "at once, events": ["--link", "events"],
    "at once, chunks": ["--link", "chunks"],
    "at once, whole": ["--link", "whole"],
    "slots, chunks": [*_SLOTS, "--link", "chunks"],
    "slots, whole": [*_SLOTS, "--link", "whole"],
    "slots, whole, pad to 64": [*_SLOTS, *_PAD, "--link", "whole"],
}


# --- a server of a steady rate --------------------------------------------------------------------


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            count, compact = body["max_tokens"], body.get("only_token_ids", False)
            ids = [1000 + 7 * position % 3000 for position in range(count)]
            if not body["stream"]:
                await asyncio.sleep(count / rate)
                data = _event(ids, compact)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                writer.write(b"content-length: %d\r\n\r\n" % len(data) + data)
                continue
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            size = body.get("stream_interval", 1)
            begun = time.monotonic()
            for start in range(0, count, size):
                await asyncio.sleep(max(0.0, begun + (start + size) / rate - time.monotonic()))
                _chunk(writer, b"data: " + _event(ids[start : start + size], compact) + b"\n\n")
            _chunk(writer, b"data: [DONE]\n\n")
            writer.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.transport.abort()


def _event(ids: list[int], compact: bool) -> bytes:
    """As vLLM writes one, or as a server that knows `only_token_ids`."""
    choice: dict[str, Any] = {"index": 0, "token_ids": ids}
    if compact:
        return json.dumps({"choices": [choice]}, separators=(",", ":")).encode()
    choice |= {"text": "word " * len(ids), "logprobs": None, "finish_reason": None, "stop_reason": None}
    frame = {
        "id": "cmpl-" + "0" * 32,
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "model",
    }
    return json.dumps({**frame, "choices": [choice]}, separators=(",", ":")).encode()


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


async def _serve(rate: float) -> None:
    server = await asyncio.start_server(lambda r, w: _answer(r, w, rate), "127.0.0.1", 0, limit=1 << 20)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


# --- the clients ----------------------------------------------------------------------------------


async def _ask(url: str, prompt: int, tokens: int, stream: bool) -> tuple[float, float, int]:
    """Seconds to the first and last byte, and bytes of the body."""
    parts = urlsplit(url)
    body = json.dumps({"prompt": [1000] * prompt, "max_tokens": tokens, "stream": stream}).encode()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    began = time.monotonic()
    head = "POST /v1/completions HTTP/1.1\r\nHost: tap\r\nConnection: close\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    first = time.monotonic() - began
    size = len(await reader.read(-1))
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"unexpected answer: {answer!r}")
    return first, time.monotonic() - began, size


async def _many(url: str, options: argparse.Namespace, stream: bool) -> dict[str, float]:
    sizes = [options.tokens // 2, options.tokens - 1, options.tokens]
    asked = [sizes[number % 3] for number in range(options.requests)]
    room = asyncio.Semaphore(8)

    async def one(tokens: int) -> tuple[float, float, int]:
        async with room:
            return await _ask(url, 32, tokens, stream)

    seen = await asyncio.gather(*(one(tokens) for tokens in asked))
    return {
        "first_byte_ms": round(1000 * statistics.median(one[0] for one in seen)),
        "whole_ms": round(1000 * statistics.median(one[1] for one in seen)),
        "client_bytes_per_token": round(sum(one[2] for one in seen) / sum(asked), 1),
        "sizes": len({one[2] // 16 for one in seen}),
    }


def _link_bytes(folder: Path) -> tuple[int, int, int, int]:
    """Bytes to and from the server, prompt and output tokens, by the log."""
    keys = folder / "keys"
    reader = LogReader.open(folder / "log", load_verifier(keys / "log.pub"), load_opener(keys))
    sent = received = prompt = output = 0
    for record in reader.records(include_uncovered=True):
        if record.close is not None:
            sent += record.close.bytes_to_upstream or 0
            received += record.close.bytes_from_upstream or 0
            prompt += len(record.open.prompt_ids)
            output += len(record.close.output_ids)
    return sent, received, prompt, output


def _wire(one_way: float, other_way: float) -> float:
    """With headers of this way's segments and of the acknowledgements of every second of the other's."""
    return one_way + _HEADER * (one_way / _SEGMENT + other_way / _SEGMENT / 2)


def _tap(processes: _Processes, folder: Path, upstream: str, flags: list[str]) -> str:
    create_keys(folder / "keys", Role.TAP)
    command = ["-m", "ullage", "tap", "--upstream", upstream, "--log", str(folder / "log")]
    return processes.start([*command, "--keys", str(folder / "keys"), "--listen", "127.0.0.1:0", *flags])[1]


def _price(options: argparse.Namespace, upstream: str) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, flags in SETTINGS.items():
        sys.stderr.write(f"{name}\n")
        row: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as folder:
            processes = _Processes()
            try:
                url = _tap(processes, Path(folder), upstream, flags)
                row["plain"] = asyncio.run(_many(url, options, False))
                row["stream"] = asyncio.run(_many(url, options, True))
            finally:
                processes.stop()
            _, received, _, output = _link_bytes(Path(folder))
            row["link_bytes_per_output_token"] = round(received / output, 1)
        rows[name] = row
    return rows


async def _steady(url: str, seconds: float, prompt: int, tokens: int, a_second: float) -> list[float]:
    begun = time.monotonic()
    tasks = []
    for number in range(int(seconds * a_second)):
        await asyncio.sleep(max(0.0, begun + number / a_second - time.monotonic()))
        tasks.append(asyncio.ensure_future(_ask(url, prompt, tokens, number % 2 == 0)))
    return [seen[1] for seen in await asyncio.gather(*tasks)]


def _rack(options: argparse.Namespace, upstream: str) -> dict[str, Any]:
    """The load of a rack under its cap: 7.5 requests a second of 800 prompt and 80 output tokens."""
    sys.stderr.write("a rack's load under its cap\n")
    with tempfile.TemporaryDirectory() as folder:
        processes = _Processes()
        try:
            url = _tap(processes, Path(folder), upstream, ["--cap", f"{_LIMIT}"])
            begun = time.monotonic()
            latencies = asyncio.run(_steady(url, options.seconds, 800, 80, 7.5))
            elapsed = time.monotonic() - begun
        finally:
            processes.stop()
        sent, received, prompt, output = _link_bytes(Path(folder))
        records = _records(Path(folder))
    to_server, from_server = sent / elapsed, received / elapsed
    return {
        "prompt_tokens_per_second": round(prompt / elapsed),
        "output_tokens_per_second": round(output / elapsed),
        "bytes_per_prompt_token": round(sent / prompt, 2),
        "bytes_per_output_token": round(received / output, 2),
        "to_server_bytes_per_second": round(to_server),
        "from_server_bytes_per_second": round(from_server),
        "wire_to_server_bytes_per_second": round(_wire(to_server, from_server)),
        "wire_from_server_bytes_per_second": round(_wire(from_server, to_server)),
        "limit": _LIMIT,
        "fits": max(_wire(to_server, from_server), _wire(from_server, to_server)) < _LIMIT,
        "median_ms": round(1000 * statistics.median(latencies)),
        "log": records,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The price of slots, buckets and link forms.")
    parser.add_argument("--role", choices=["run", "server"], default="run", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=400.0, help="tokens a second that the server makes")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--requests", type=int, default=24, help="a setting")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a rack's load")
    options = parser.parse_args()
    if options.role == "server":
        asyncio.run(_serve(options.rate))
        return
    processes = _Processes()
    try:
        _, upstream = processes.start([__file__, "--role", "server", "--rate", str(options.rate)])
        result = {
            "benchmark": "tap_release",
            "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()[0]},
            "settings": _price(options, upstream),
            "rack": _rack(options, upstream),
        }
    finally:
        processes.stop()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
