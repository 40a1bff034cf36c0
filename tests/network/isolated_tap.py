"""`ullage tap --isolate` and `ullage wire meter`, started from the command line as people do it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.network import lab
from ullage.log.keys import Role, create_keys, load_verifier
from ullage.log.record import Record
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader

SERVER = f"{sys.executable} {{program}} --listen {{{{host}}}}:{{{{port}}}}"
ULLAGE = [sys.executable, "-m", "ullage"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{lab.ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
CAP = 100_000


@dataclass
class Tap:
    """An isolated tap that runs."""

    folder: Path
    process: subprocess.Popen[str]
    address: tuple[str, int]
    namespace: str

    def ask(self, path: str = "/v1/completions", **fields: Any) -> bytes:
        """The body of an answer; it must be one."""
        connection = HTTPConnection(*self.address, timeout=60)
        body = {"prompt": "In the beginning", "max_tokens": 40, **fields}
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read()
        connection.close()
        assert response.status == 200, data
        return data

    def hang_up(self, **fields: Any) -> None:
        """Ask and leave before the answer."""
        body = json.dumps({"prompt": "In the beginning", "max_tokens": 120, **fields}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        with socket.create_connection(self.address, 10) as client:
            client.sendall(head + body)
            client.settimeout(0.15)
            with contextlib.suppress(TimeoutError):
                client.recv(1)

    def stop(self) -> str:
        """End it; what it wrote on standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return errors

    def records(self) -> list[Record]:
        reader = self._reader()
        assert reader.verify().verdict == "pass"
        return list(reader.records())

    def closes(self) -> int:
        """How many answers of a log that is still written have ended."""
        return sum(record.close is not None for record in self._reader().records())

    def _reader(self) -> LogReader:
        key, opener = load_verifier(self.folder / "keys" / "log.pub"), load_opener(self.folder / "keys")
        return LogReader.open(self.folder / "log", key, opener)


@contextlib.contextmanager
def isolated_tap(folder: Path, *options: str, program: str = "-m ullage serve") -> Iterator[Tap]:
    create_keys(folder / "keys", Role.TAP)
    command = [*ULLAGE, "tap", "--isolate", SERVER.format(program=program), "--cap", f"{CAP}B/s"]
    command += ["--log", str(folder / "log"), "--keys", str(folder / "keys"), "--listen", "127.0.0.1:0"]
    command += ["--wire-journal", str(folder / "wire.journal"), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), process.communicate()[1]
            said = process.stderr.readline()
            namespace = re.search(r"namespace (ullage-\S+-link)", said)
            assert namespace is not None, said
            host, _, port = line.strip().rpartition("/")[2].rpartition(":")
            yield Tap(folder, process, (host, int(port)), namespace[1])
        finally:
            if process.poll() is None:
                process.kill()


@contextlib.contextmanager
def metered(tap: Tap) -> Iterator[dict[str, Any]]:
    """Meter what happens in the block; the dictionary has the meter's JSON and `exit` at its end."""
    keys = tap.folder / "keys"
    command = [*ULLAGE, "wire", "meter", "--namespace", tap.namespace, "--json", "--limit", str(CAP)]
    command += ["--journal", str(tap.folder / "wire.journal"), "--log", str(tap.folder / "log")]
    command += ["--keys", str(keys), "--key", str(keys / "log.pub")]
    found: dict[str, Any] = {}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as meter:
        assert meter.stderr is not None
        assert meter.stderr.readline().startswith("metering ")
        try:
            yield found
        finally:
            meter.send_signal(signal.SIGINT)
            output, errors = meter.communicate(timeout=60)
        assert output, errors
        found.update(json.loads(output), exit=meter.returncode)


def wait_for_closes(tap: Tap, count: int) -> None:
    """Until that many exchanges are in the wire journal, and their records' closes in the log.

    Of an enforced draft the record comes after the exchange: when the reference has answered as well.
    """
    journal = tap.folder / "wire.journal"
    for _ in range(1800):
        exchanges = journal.read_bytes().count(b'"entry":"exchange"')
        if exchanges >= count and tap.closes() >= count:
            return
        threading.Event().wait(0.1)
    raise AssertionError("answers were not read to their end")
