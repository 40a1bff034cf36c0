"""What filler costs the latency of serving, in turns: `python benchmarks/work_latency.py --seconds 600`.

Serves the built-in model at a steady rate. Every few seconds filler is stopped or goes on, so that both see
the same machine minutes long; requests that meet a change are left out. Prints the medians of requests with
and without and their ratio with the interval of a bootstrap: of all turns, and of those from which the
hypervisor took no more than an account allows. It takes most from who is busy, which filler makes a machine.

`--filler agent` is the agent, with a verifier that asks for units. To find out what slows requests down,
`spin` are idle-class processes that count, `stream` read memory, `product` multiply: none talks to anybody.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ullage.threads import ALONE
from ullage.work import steal
from ullage.work.run import Accounting, Plan
from ullage.work.shape import Shape
from ullage.work.stream import parse_address
from ullage.work.verifier import Terms
from ullage.work.window import STEAL_LIMIT, Worth
from work_accounting import Load, median_of, on_cores, parse_cores, process, processor_seconds, ratio

_IDLE_CLASS = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
_HOGS = {
    "spin": "while True: pass",
    "stream": "import numpy as n\na = n.ones(1 << 25)\nwhile True: a.sum()",
    "product": "import numpy as n\na = n.ones((1024, 1024), n.float32)\nwhile True: a @ a",
}


@dataclass(frozen=True)
class Turn:
    """Nanoseconds since 1970, whether filler ran, the share of time that the hypervisor took, and how many
    cores the filler's processes had."""

    start: int
    end: int
    filled: bool
    stolen: float
    cores: float


@contextlib.contextmanager
def hogs(kind: str, cores: frozenset[int]) -> Iterator[list[int]]:
    """One on each core, in the idle class; yields their pids."""
    with on_cores(cores):
        command = [sys.executable, "-c", _IDLE_CLASS + _HOGS[kind]]
        found = [subprocess.Popen(command, env=os.environ | ALONE) for _ in cores]
    try:
        yield [one.pid for one in found]
    finally:
        for one in found:
            one.kill()


@contextlib.contextmanager
def agent(cores: frozenset[int], shape: str) -> Iterator[list[int]]:
    """The agent with a verifier that keeps it busy; yields the pids of agent and workers."""
    slots = len(cores)
    with process(cores, "work", "agent", "--listen", "127.0.0.1:0", "--slots", str(slots)) as (address, pid):
        host, port = parse_address(address)
        terms = Terms(host, port, slots, Shape.parse(shape), connect_seconds=120.0)
        worth = Worth(0.1, 0.1, terms.shape.operations)
        windows = Accounting(Plan(terms, worth, 60.0, 1_000, 20)).windows()
        threading.Thread(target=lambda: [None for _ in windows], daemon=True).start()
        time.sleep(5)
        yield [pid, *children(pid)]


def children(pid: int) -> list[int]:
    """Processes that this one started, and theirs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found += [int(path.parent.name), *children(int(path.parent.name))]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--turn", type=float, default=15, help="seconds with, then without filler")
    parser.add_argument("--machine-cores", default="0-1")
    parser.add_argument("--rate", type=float, default=1.0, help="requests a second")
    parser.add_argument("--shape", default="2048,8192,2048")
    parser.add_argument("--filler", choices=("agent", *_HOGS), default="agent")
    arguments = parser.parse_args()
    cores = parse_cores(arguments.machine_cores)
    os.sched_setaffinity(0, os.sched_getaffinity(0) - cores or cores)
    filler = agent(cores, arguments.shape) if arguments.filler == "agent" else hogs(arguments.filler, cores)
    turns: list[Turn] = []
    with process(cores, "serve", "--listen", "127.0.0.1:0") as (server, _), filler as pids:
        load = Load(server, arguments.rate)
        load.run((1.0,), 5)
        load.clear()
        loader = threading.Thread(target=load.run, args=((1.0,), arguments.seconds), daemon=True)
        loader.start()
        end, filled = time.monotonic() + arguments.seconds, random.random() < 0.5
        while time.monotonic() < end:
            signal_all(pids, signal.SIGCONT if filled else signal.SIGSTOP)
            start, before, spent = time.time_ns(), steal.read(), spent_by(pids)
            time.sleep(min(arguments.turn, max(0.1, end - time.monotonic())))
            after = steal.read()
            stolen = after.share_since(before) if before and after else 0.0
            end_of_turn = time.time_ns()
            had = (spent_by(pids) - spent) / (end_of_turn - start) * 1e9
            turns.append(Turn(start, end_of_turn, filled, stolen, had))
            filled = not filled
        loader.join(60)
        signal_all(pids, signal.SIGCONT)
    report(arguments, load, turns)
    os._exit(0)  # the account never ends by itself


def spent_by(pids: list[int]) -> float:
    """Processor seconds of those that are still there."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += processor_seconds(pid)
    return total


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def report(arguments: argparse.Namespace, load: Load, turns: list[Turn]) -> None:
    calm = [turn for turn in turns if turn.stolen <= STEAL_LIMIT]
    result = {
        "filler": arguments.filler,
        "rate": arguments.rate,
        "failed": load.failed,
        "steal": by_kind(turns, "stolen"),
        "cores_of_filler": by_kind(turns, "cores"),  # or with and without are not what they are called
        "all": compared(load, turns),
        "calm": compared(load, calm),
    }
    print(json.dumps(result, indent=1), flush=True)


def by_kind(turns: list[Turn], name: str) -> dict[str, float | None]:
    """The medians of turns with filler and without."""
    return {
        kind: median_of([getattr(turn, name) for turn in turns if turn.filled is filled])
        for kind, filled in (("with", True), ("without", False))
    }


def compared(load: Load, turns: list[Turn]) -> dict[str, object]:
    """Requests that began and ended in one of these turns."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for one in load.served:
        for turn in turns:
            if turn.start <= one.start and one.end <= turn.end:
                found[turn.filled].append((one.end - one.start) / 1e9)
    return {
        "turns": len(turns),
        "requests": {"with": len(found[True]), "without": len(found[False])},
        "median_seconds": {"with": median_of(found[True]), "without": median_of(found[False])},
        "ratio": ratio(found[True], found[False]),
    }


if __name__ == "__main__":
    main()
