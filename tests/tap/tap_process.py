"""Starts, watches and ends a tap; reads its log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ullage.log.keys import Role, create_keys, load_verifier
from ullage.log.record import Record
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader


class TapProcess:
    """A tap in a process of its own; use as a context manager. Its log outlives it."""

    def __init__(self, folder: Path, upstream: str, **options: Any) -> None:
        self.log = folder / "log"
        self.keys = folder / "keys"
        if not self.keys.exists():
            create_keys(self.keys, Role.TAP)
        defaults = {
            "timeouts": {}, "limits": {}, "max_active": 256, "grace": 5, "file_bytes": 0, "link": "events",
            "pace": {}, "allowance": {}, "paths": {}, "settings": {}, "monitoring": {},
            "covert": {},
            "listen": "127.0.0.1:0",
        }  # fmt: skip
        self._options = {
            **defaults, "upstream": upstream, "log": str(self.log), "keys": str(self.keys), **options
        }  # fmt: skip
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.tap.launcher", json.dumps(self._options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise AssertionError(f"the tap did not start: {self.process.communicate()[1]}")
        self.url = line.split()[-1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.communicate()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; returns the exit code and what was written to standard error."""
        assert self.process is not None
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def reader(self) -> LogReader:
        return LogReader.open(self.log, load_verifier(self.keys / "log.pub"), load_opener(self.keys))

    def records(self) -> list[Record]:
        """All records by counter, those in flight included."""
        return sorted(self.reader().records(include_uncovered=True), key=lambda record: record.counter)

    def closed(self, counter: int = -1) -> Record:
        """That record (-1: the newest) once it has its close."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            records = self.records()
            if records and len(records) > counter and records[counter].close is not None:
                return records[counter]
            time.sleep(0.02)
        raise AssertionError(f"record {counter} was not closed")

    def assert_sound(self) -> None:
        """After the tap has ended: the log verifies and nothing in it is open."""
        findings = self.reader().verify()
        assert findings.verdict == "pass", findings.findings
        assert findings.covered == findings.entries
        assert findings.opened == findings.closed
