"""Kills and stops every part of a running tap under load, and counts what was released that may not be.

    python benchmarks/tap_faults.py                        100 rounds, half of them with an enforcer
    python benchmarks/tap_faults.py --rounds 8 --mode plain
    python benchmarks/tap_faults.py --rounds 20 --mode metered     an isolated stub and a meter (root)

A round kills the upstream, the enforcer, the meter or the tap and starts it again, stops one of them
(SIGSTOP) for a while, or fills the log's disk (a limit on the size of files), at any moment of the load. The
upstream is a stub whose tokens are never the reference's. Afterwards every body that a client got, as far as
it came, is looked for in the log; with an enforcer recorded outputs are derived again. Prints JSON; ends with
1 when anything was released without a record or unverified.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tap_overhead
from ullage.log.keys import Role, create_keys, load_verifier
from ullage.log.record import Record
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader

_PROMPT = list(range(10, 42))
_TOKENS = 16
_PROFILE = "murmur3-gumbel/f64"
_ALARMING = (
    ("enforcer", "kill"), ("enforcer", "stop"), ("disk", "full"), ("meter", "kill"), ("meter", "stop")
)  # fmt: skip
_ACTS = {
    "plain": ("upstream kill", "upstream stop", "tap kill", "tap stop", "disk full"),
    "enforced": (
        "upstream kill", "upstream stop", "tap kill", "tap stop", "disk full", "enforcer kill",
        "enforcer stop",
    ),
    "metered": ("meter kill", "meter stop", "tap stop", "disk full"),  # a tap's journal is of one start
}  # fmt: skip


class _Process:
    """One part, which can be started again as it was. `heard` are its lines of error output, with times."""

    def __init__(self, arguments: list[str], *, listens: bool = True) -> None:
        self.heard: list[tuple[float, str]] = []
        self.url = ""
        self._arguments = arguments
        self._listens = listens
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *self._arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if self._listens:
            assert self.process.stdout
            line = self.process.stdout.readline()
            if not line.startswith("listening on "):
                raise SystemExit(f"{self._arguments[:3]} did not start: {self.process.communicate()[1]}")
            self.url = line.split()[-1]
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(60)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr
        for line in process.stderr:
            self.heard.append((time.monotonic(), line.strip()))


@dataclass
class _Load:
    """Clients that ask without a pause, plain and streamed in turns, and keep what they got."""

    url: str
    plain: list[bytes] = field(default_factory=list)
    streams: list[bytes] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        over = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(over, one)) for one in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _ask(self, over: threading.Event, number: int) -> None:
        while not over.is_set():
            number += 1
            fields = {"prompt": _PROMPT, "max_tokens": _TOKENS, "temperature": 0.9, "stream": number % 2 == 0}
            head, body = _answer(self.url, json.dumps(fields).encode())
            if not head.startswith(b"HTTP/1.1 200"):
                code = json.loads(body)["error"]["code"] if body.endswith(b"}") else "no answer"
                self.codes[code] += 1
                time.sleep(0.02)
            elif b"chunked" in head:
                self.streams.append(_without_errors(_dechunked(body)))
                self.codes["stream"] += 1
            else:
                self.plain.append(body)
                self.codes["plain"] += 1


def _answer(url: str, body: bytes) -> tuple[bytes, bytes]:
    """Head and body, as far as they came."""
    parts = urlsplit(url)
    received = b""
    try:
        with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=30) as connection:
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: tap\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n" % len(body) + body
            )
            while data := connection.recv(1 << 16):
                received += data
    except OSError:
        pass
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def _dechunked(body: bytes) -> bytes:
    whole = b""
    while b"\r\n" in body:
        size, _, body = body.partition(b"\r\n")
        if len(body) < int(size, 16):
            break
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return whole


def _without_errors(stream: bytes) -> bytes:
    """A stream up to the error that ended it, which is of the fixed list and says nothing of the answer."""
    return stream.partition(b'data: {"error":')[0]


@dataclass
class _Lab:
    folder: Path
    mode: str
    chance: random.Random
    parts: dict[str, _Process] = field(default_factory=dict)
    alarms: dict[str, list[float]] = field(default_factory=dict)

    def start(self) -> None:
        create_keys(self.folder / "keys", Role.TAP)
        tap = ["-m", "ullage", "tap", "--listen", f"127.0.0.1:{_free_port()}",
               "--log", str(self.folder / "log"), "--keys", str(self.folder / "keys")]  # fmt: skip
        if self.mode == "metered":
            self._start_metered(tap)
            return
        stub = [tap_overhead.__file__, "--role", "stub", "--port", str(_free_port())]
        self.parts["upstream"] = _Process(stub)
        tap += ["--upstream", self.parts["upstream"].url]
        if self.mode == "enforced":
            sock = str(self.folder / "enforcer.sock")
            self.parts["enforcer"] = _Process(
                ["-m", "ullage", "enforcer", "--socket", sock, "--threads", "1"]
            )
            tap += ["--enforce", sock]
        self.parts["tap"] = _Process(tap)

    def _start_metered(self, tap: list[str]) -> None:
        """An isolated stub, a tap that rests on a meter, and the meter on the cable between them."""
        stub = f"{sys.executable} {tap_overhead.__file__} --role stub --host {{host}} --port {{port}}"
        source = Path(sys.modules["ullage"].__file__ or "").parent.parent
        journal, alive, keys = (str(self.folder / name) for name in ("wire", "alive", "keys"))
        tap += ["--isolate", stub, "--isolate-readable", f"{Path(tap_overhead.__file__).parent}:{source}"]
        tap += ["--cap", "20MB/s", "--wire-journal", journal, "--meter", alive]
        self.parts["tap"] = _Process(tap)
        found = self._hear(r"namespace (ullage-\S+-link)")
        self.parts["meter"] = _Process(
            ["-m", "ullage", "wire", "meter", "--namespace", found[1], "--journal", journal, "--alive", alive,
             "--log", str(self.folder / "log"), "--keys", keys],
            listens=False,
        )  # fmt: skip
        self._hear("recovered from meter_unavailable")

    def settle(self) -> None:
        """Wait until the meter is heard again: an alarm that is on cannot go off."""
        for _ in range(300):
            time.sleep(0.1)
            told = [text for _, text in self.parts["tap"].heard if "meter" in text]
            if "recovered" in told[-1]:
                return
        raise SystemExit("the meter is not heard any more")

    def _hear(self, pattern: str) -> re.Match[str]:
        """Wait until the tap has said this."""
        for _ in range(300):
            found = re.search(pattern, " ".join(text for _, text in self.parts["tap"].heard))
            if found:
                return found
            time.sleep(0.1)
        raise SystemExit(f"the tap did not say {pattern!r}")

    def round(self, part: str, act: str) -> None:
        tap = self.parts["tap"]
        begun = time.monotonic()
        if act == "full":
            _limit_files(tap.process.pid, 0)
            time.sleep(self.chance.uniform(1.0, 1.5))
            _limit_files(tap.process.pid, resource.RLIM_INFINITY)
        elif act == "stop":
            self.parts[part].process.send_signal(signal.SIGSTOP)
            time.sleep(self.chance.uniform(1.2, 1.8))
            self.parts[part].process.send_signal(signal.SIGCONT)
        else:
            self.parts[part].kill()
            # A tap is told of nobody's death but the meter's silence: that has to last to be one.
            time.sleep(self.chance.uniform(1.0, 1.6) if part == "meter" else self.chance.uniform(0.0, 0.6))
            self.parts[part].start()
        if (part, act) in _ALARMING:
            later = [at - begun for at, _ in tap.heard if at > begun]
            self.alarms.setdefault(f"{part} {act}", []).append(min(later, default=99.0))

    def end(self) -> None:
        for name in ("tap", "meter", "enforcer", "upstream"):
            if name in self.parts:
                self.parts[name].end()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _limit_files(process: int, size: int) -> None:
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _covered(record: Record, stream: bytes) -> int:
    """How many bytes of what came of a stream the record describes, part by part; 0 if one is another."""
    digest = None if record.close is None else record.close.released_digest
    if digest == "sha256:" + hashlib.sha256(stream).hexdigest():
        return len(stream)
    start = 0
    for chunk in record.chunks:
        piece = stream[start : start + chunk.bytes]
        if len(piece) < chunk.bytes:
            break  # cut within a part, or at its end
        if chunk.digest != "sha256:" + hashlib.sha256(piece).hexdigest():
            return 0
        start += len(piece)
    return start


def _released(records: list[Record], load: _Load) -> dict[str, int]:
    """Bodies and streams without a record, and streams whose last event was cut by a kill.

    Of a cut event no digest is known; it is one event at most, since an event is one write.
    """
    known = {record.close.released_digest for record in records if record.close is not None}
    missing = sum("sha256:" + hashlib.sha256(body).hexdigest() not in known for body in load.plain)
    by_first: dict[tuple[int, str], list[Record]] = {}
    for record in records:
        if record.open.stream and record.chunks:
            first = record.chunks[0]
            by_first.setdefault((first.bytes, first.digest), []).append(record)
    sizes = sorted({size for size, _ in by_first})
    cut = 0
    for stream in load.streams:
        begins = [(size, "sha256:" + hashlib.sha256(stream[:size]).hexdigest()) for size in sizes]
        likely = [record for begin in begins for record in by_first.get(begin, ())]
        rest = stream[max((_covered(one, stream) for one in likely), default=0) :]
        cut += bool(rest) and b"\n\n" not in rest
        missing += b"\n\n" in rest
    return {"released_without_a_record": missing, "cut_within_an_event": cut}


def _unverified(records: list[Record], most: int, chance: random.Random) -> dict[str, int]:
    """How many outputs were derived again, and how many of them are not the reference's own."""
    import torch

    from ullage.enforce.rederive import rederive
    from ullage.enforce.reference import ChunkedReference
    from ullage.model import builtin
    from ullage.sampling.parameters import SamplingParameters

    torch.set_num_threads(1)  # more wait for each other where cores are shared
    reference = ChunkedReference.load(builtin.builtin_path())
    said = [record for record in records if record.output_ids]
    drawn = said if len(said) <= most else chance.sample(said, most)
    sys.stderr.write(f"deriving {len(drawn)} of {len(said)} outputs again\n")
    wrong = 0
    for record in drawn:
        right = rederive(
            reference, _PROFILE, record.open.prompt_ids, seed=record.open.seed,
            parameters=SamplingParameters(0.9), max_tokens=_TOKENS, draft=record.output_ids,
        )  # fmt: skip
        wrong += right.ids[: len(record.output_ids)] != record.output_ids
    return {"outputs": len(said), "derived_again": len(drawn), "released_unverified": wrong}


def _run(rounds: int, folder: Path, options: argparse.Namespace, mode: str) -> dict[str, Any]:
    lab = _Lab(folder, mode, random.Random(options.seed))
    acts = [tuple(act.split()) for act in _ACTS[mode]]
    lab.start()
    load = _Load(lab.parts["tap"].url)
    with load.running(options.clients):
        for number in range(rounds):
            time.sleep(lab.chance.uniform(0.3, 1.2))
            sys.stderr.write(f"round {number + 1} of {rounds}: {' '.join(acts[number % len(acts)])}\n")
            lab.round(*acts[number % len(acts)])
            if mode == "metered":
                lab.settle()
        time.sleep(1)
    if mode != "metered":
        lab.parts["tap"].kill()
        lab.parts["tap"].start()  # recovers what was in flight
    lab.end()
    reader = LogReader.open(
        folder / "log", load_verifier(folder / "keys" / "log.pub"), load_opener(folder / "keys")
    )
    records = list(reader.records(include_uncovered=True))
    return {
        "rounds": rounds,
        "answers": dict(sorted(load.codes.items())),
        "log": {"verdict": str(reader.verify().verdict), "records": len(records)},
        **_released(records, load),
        **(_unverified(records, options.derive, lab.chance) if mode == "enforced" else {}),
        "slowest_alarm_s": {name: round(max(times), 3) for name, times in lab.alarms.items()},
        "alarms_s": {name: [round(one, 2) for one in times] for name, times in lab.alarms.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill and stop every part of a tap under load.")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--mode", choices=["both", *_ACTS], default="both")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--derive", type=int, default=1000, help="most outputs that are derived again")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    modes = ("plain", "enforced") if options.mode == "both" else (options.mode,)
    result: dict[str, Any] = {
        "benchmark": "tap_faults",
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()[0]},
    }
    for name in modes:
        with tempfile.TemporaryDirectory() as folder:
            result[name] = _run(options.rounds // len(modes), Path(folder), options, name)
    print(json.dumps(result, indent=1))
    bad = sum(result[name].get(key, 0) for name in modes
              for key in ("released_without_a_record", "released_unverified"))  # fmt: skip
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
