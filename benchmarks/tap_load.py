"""The tap under load: many streams for long, many short requests, and nginx as a plain proxy beside it.

    python benchmarks/tap_load.py                          a minute of 200 streams, then short requests
    python benchmarks/tap_load.py --minutes 10             the long run
    python benchmarks/tap_load.py --upstream URL           a real server for the streams

Streams: no error, no record lost, memory at the end beside memory after the first tenth. Short requests:
stub, tap and nginx (where it is installed) in turns, each with the same load; all of the tap's are durably on
record. Without the cap and without slots. The load is `tap_overhead`'s, a protocol of asyncio on uvloop, so
that it takes little of the cores that it shares with what it measures. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

import tap_overhead
from ullage.log.keys import Role, create_keys, load_verifier
from ullage.log.store import LogReader

_NGINX = """
worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; daemon off;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream stub {{ server {upstream}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 1000000;
    location / {{ proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def _resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _ticks(process: int) -> float:
    """Processor seconds of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _streams(url: str, count: int, seconds: float, max_tokens: int, process: int) -> dict[str, Any]:
    """Keep `count` streams going; what they brought, and the memory of the tap meanwhile."""
    parts = urlsplit(url)
    body = json.dumps({"prompt": list(range(10, 42)), "max_tokens": max_tokens, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: tap\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    done, tokens, errors = 0, 0, 0
    begin = time.perf_counter()
    memory: list[int] = []

    async def one() -> None:
        nonlocal done, tokens, errors
        while time.perf_counter() - begin < seconds:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 20)
            try:
                writer.write(head.replace(b"Host: tap", b"Host: tap\r\nConnection: close") + body)
                data = await reader.read(-1)
                if b"data: [DONE]" in data:
                    done += 1
                    tokens += data.count(b'"finish_reason":null')
                else:
                    errors += 1
            except OSError:
                errors += 1
            finally:
                writer.close()

    async def watch() -> None:
        while True:
            memory.append(_resident(process))
            await asyncio.sleep(max(0.2, seconds / 100))

    watcher = asyncio.ensure_future(watch())
    await asyncio.gather(*(one() for _ in range(count)))
    watcher.cancel()
    elapsed = time.perf_counter() - begin
    early = max(memory[: max(1, len(memory) // 10)])
    return {
        "streams": done,
        "errors": errors,
        "text_events_per_second": round(tokens / elapsed, 1),
        "seconds": round(elapsed, 1),
        "memory_early_mib": round(early / 2**20, 1),
        "memory_late_mib": round(memory[-1] / 2**20, 1),
    }


class _Processes:
    """What was started, to be ended in the end."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def start(self, arguments: Sequence[str]) -> tuple[int, str]:
        process, url = tap_overhead._start(arguments)
        self.running.append(process)
        return process.pid, url

    def nginx(self, folder: Path, upstream: str) -> str | None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            return None
        port = 18080 + os.getpid() % 1000
        config = folder / "nginx.conf"
        config.write_text(_NGINX.format(folder=folder, upstream=urlsplit(upstream).netloc, port=port))
        self.running.append(
            subprocess.Popen([program, "-c", str(config), "-e", str(folder / "error.log")], text=True)
        )
        time.sleep(1)
        return f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        for process in reversed(self.running):
            process.terminate()
            process.wait(60)


def _tap(processes: _Processes, folder: Path, upstream: str, taps: int = 1) -> tuple[list[int], str]:
    """Taps behind one port, each with its own log; their processes, and where they listen."""
    create_keys(folder / "keys", Role.TAP)
    listen, pids = "127.0.0.1:0", []
    for number in range(taps):
        pid, url = processes.start(
            ["-m", "ullage", "tap", "--upstream", upstream, "--log", str(folder / f"log.{number}"), "--keys",
             str(folder / "keys"), "--listen", listen, *(["--share-port"] if taps > 1 else [])]
        )  # fmt: skip
        listen = urlsplit(url).netloc
        pids.append(pid)
    return pids, f"http://{listen}"


def _records(folder: Path) -> dict[str, Any]:
    key = load_verifier(folder / "keys" / "log.pub")
    found = [LogReader.open(log, key).verify() for log in sorted(folder.glob("log*"))]
    verdicts = {one.verdict for one in found}
    return {
        "verdict": verdicts.pop() if len(verdicts) == 1 else sorted(verdicts),
        "closed": sum(one.closed for one in found),
    }


def _long_run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    processes = _Processes()
    try:
        upstream = options.upstream or processes.start([tap_overhead.__file__, "--role", "stub"])[1]
        [pid], url = _tap(processes, folder, upstream)
        result = asyncio.run(_streams(url, options.streams, options.minutes * 60, options.max_tokens, pid))
    finally:
        processes.stop()
    return {"connections": options.streams, **result, "log": _records(folder)}


def _short_requests(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    processes = _Processes()
    body = {"prompt": list(range(10, 42)), "max_tokens": 16, "temperature": 1.0}
    direct = {**body, "return_token_ids": True, "seed": 1, "n": 1}
    measured: dict[str, list[dict[str, Any]]] = {}
    try:
        _, stub = processes.start([tap_overhead.__file__, "--role", "stub"])
        pids, url = _tap(processes, folder, stub, options.taps)
        targets = {"stub": (stub, direct), "tap": (url, body)}
        nginx = processes.nginx(folder, stub)
        if nginx is not None:
            targets["nginx"] = (nginx, direct)
        for number in range(options.rounds):
            for name, (address, asked) in targets.items():
                sys.stderr.write(f"{name}: round {number + 1} of {options.rounds}\n")
                before = sum(map(_ticks, pids))
                for suffix, clients in (("", options.connections), (", one client", 1)):
                    one = tap_overhead._measure(address, asked, options.seconds, clients)
                    if name == "tap":
                        after = sum(map(_ticks, pids))
                        one["processor_us"] = 1e6 * (after - before) / one["requests"]
                        before = after
                    measured.setdefault(name + suffix, []).append(one)
    finally:
        processes.stop()
    summary = {name: tap_overhead._summary(rounds) for name, rounds in measured.items()}
    counted = sum(one["requests"] for name in ("tap", "tap, one client") for one in measured[name])
    return {
        "connections": options.connections,
        "taps": options.taps,
        **summary,
        "added_median_ms_one_client": round(
            summary["tap, one client"]["median_ms"] - summary["stub, one client"]["median_ms"], 3
        ),
        "tap_answers_counted": counted,
        "log": _records(folder),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The tap under load, nginx beside it.")
    parser.add_argument("--taps", type=int, default=1, help="behind one port, for the short requests")
    parser.add_argument("--minutes", type=float, default=1.0, help="of streams; 0: none")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--upstream", help="a real server for the streams instead of the stub")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="length of a round of short requests; 0: none"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    uvloop.install()
    result: dict[str, Any] = {
        "benchmark": "tap_load",
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()[0]},
    }
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        if options.minutes:
            result["long_run"] = _long_run(options, Path(first))
        if options.seconds:
            result["short_requests"] = _short_requests(options, Path(second))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
