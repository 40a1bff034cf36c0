"""Cores that stand for a machine, processes on them, and a companion, for the benchmarks of `work_*.py`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from ullage.work.shape import Shape
from ullage.work.stream import parse_address
from ullage.work.verifier import Terms


def parse_cores(text: str) -> frozenset[int]:
    """`0-2,5` as a set; everything that this process may use without one."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found) or frozenset(os.sched_getaffinity(0))


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Processes that are started here stay on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def process(cores: frozenset[int], *arguments: str) -> Iterator[tuple[str, int]]:
    """`ullage …`, which prints its address; (address, pid)."""
    command = [sys.executable, "-m", "ullage", *arguments]
    with on_cores(cores):
        running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with running:
        try:
            assert running.stdout is not None
            line = running.stdout.readline()
            yield line.strip().rpartition(" ")[2].removeprefix("http://"), running.pid
        finally:
            running.terminate()


def processor_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def companion_on(stack: contextlib.ExitStack, cores: str, shape: str) -> Terms | None:
    """A companion of the verifier's own on these cores, where the verifier stays too; None without cores."""
    if not cores:
        return None
    beside = parse_cores(cores)
    os.sched_setaffinity(0, beside)  # the verifier's few rows are the companion's loss
    command = ("work", "agent", "--listen", "127.0.0.1:0", "--full-priority", "--slots", str(len(beside)))
    address, _ = stack.enter_context(process(beside, *command))
    return Terms(*parse_address(address), len(beside), Shape.parse(shape))
