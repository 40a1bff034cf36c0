"""The agent's workers in the idle class: no thread of theirs is outside it, to be waited for."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ullage.work.protocol import MAX_FROM_PROVER, Hello, Mode, Ready
from ullage.work.shape import Shape
from ullage.work.stream import Stream, parse_address

INNER = Shape(128, 8192, 128)
"""As long inside as the default: numpy's library then shares the test of the kernel among threads."""
PATIENCE = 60.0
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
CORES = sorted(os.sched_getaffinity(0))[:2]


@pytest.fixture
def agent() -> Iterator[tuple[tuple[str, int], int]]:
    """(address, pid) of a machine of two cores and slots, whose environment says nothing of threads."""
    environment = {name: value for name, value in os.environ.items() if name not in THREADS}
    command = [sys.executable, "-m", "ullage", "work", "agent", "--listen", "127.0.0.1:0", "--slots", "2"]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    os.sched_setaffinity(0, before)
    with process:
        try:
            assert process.stdout is not None
            yield parse_address(process.stdout.readline().strip().rpartition(" ")[2]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def greet_both_slots(address: tuple[str, int]) -> None:
    with contextlib.ExitStack() as closing:
        streams = []
        for _ in range(2):  # a slot serves one at a time, so that each of these has its own
            streams.append(Stream(socket.create_connection(address, PATIENCE), MAX_FROM_PROVER))
            closing.callback(streams[-1].close)
            streams[-1].send(Hello(Mode.OPENINGS, INNER, 2, bytes(16)))
        for stream in streams:
            assert isinstance(stream.receive(PATIENCE), Ready)


@pytest.mark.skipif(len(CORES) < 2, reason="one core: no library starts threads")
def test_a_worker_has_one_thread_and_that_is_in_the_idle_class(agent: tuple[tuple[str, int], int]) -> None:
    # A library's thread at normal priority, spinning for its part of a product that the idle one has not
    # done, kept that one from the core: terms were accepted after 10 to 50 s, and verifiers wait for 30.
    address, pid = agent
    greet_both_slots(address)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    workers = [child for child in children if is_worker(child)]
    assert len(workers) == 2
    for worker in workers:
        (thread,) = Path(f"/proc/{worker}/task").iterdir()
        assert os.sched_getscheduler(int(thread.name)) == os.SCHED_IDLE


def is_worker(pid: str) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


SPINNER = """
import os, threading, sys
from ullage.work.agent import _enter_idle_class
thread = threading.Thread(target=threading.Event().wait, daemon=True)
thread.start()
_enter_idle_class()
print(*(os.sched_getscheduler(int(name)) for name in os.listdir("/proc/self/task")))
"""


def test_threads_that_are_there_already_enter_the_idle_class() -> None:
    told = subprocess.run([sys.executable, "-c", SPINNER], capture_output=True, text=True, check=True).stdout
    assert told.split() == [str(os.SCHED_IDLE)] * len(told.split())
    assert len(told.split()) >= 2
