"""Agents as processes, and a calibration that does not depend on the machine that runs the tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

from ullage.memory.calibration import Calibration

MIB = 1 << 20

CALIBRATION = Calibration(
    machine="test",
    cores=4,
    rebuild_rate=50e9,
    rebuild_source="declared",
    read_rate=0.05e9,  # long deadlines: the tests run on busy machines
    spot_rate=0.005e9,
    store_rate=0.1e9,
    store_reads=25e3,
    generator_rate=4e9,
    first_touch_rate=0.5e9,
    warm_write_rate=5e9,
    step_seconds=2e-3,
    alternative_seconds=90e-6,
    created="1",
    expires="9999999999999999999",
)


@contextlib.contextmanager
def running(*arguments: str, ready: str = "listening on ") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`ullage ARGUMENTS` as a process; yields what follows `ready` in its first line, and the process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ullage", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    killer = threading.Timer(120, process.kill)
    killer.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(ready), (
            f"{line!r} {process.communicate()[1] if process.poll() is not None else ''}"
        )
        yield line[len(ready) :].strip(), process
    finally:
        killer.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def agent(size_mib: int = 16) -> Iterator[str]:
    """An honest agent that maps at most so much."""
    with running(
        "agent",
        "--listen",
        "127.0.0.1:0",
        "--machine",
        "host",
        "--limit-mib",
        str(size_mib),
        "--reserve-mib",
        "64",
    ) as (address, _):
        yield address
