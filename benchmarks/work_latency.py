"""What filler costs the latency of serving: `python benchmarks/work_latency.py --seconds 600`.

Serves the built-in model at a steady rate, in pairs of turns: the same requests with the same seeds come at
the same moments, once beside filler and once without, in a random order. So both see the same batches of the
same tokens, and the same machine minutes long. Prints the ratio of the medians, and the median of each
request's own ratio, with intervals that a bootstrap of whole pairs gives: of all pairs, and of those from
which the hypervisor took no more than an account allows.

`--filler agent` is the agent, with a verifier that asks for units. To find out what slows requests down, the
others are idle-class processes that talk to nobody: `spin` count, `tiny-product`, `small-product` and
`product` multiply in 0.1, 0.75 and 12 MB, `stream` read 256 MB again and again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from ullage.threads import ALONE
from ullage.work import steal
from ullage.work.run import Accounting, Plan
from ullage.work.shape import Shape
from ullage.work.stream import parse_address
from ullage.work.verifier import Terms
from ullage.work.window import STEAL_LIMIT, Worth
from work_ground.load import TOKENS
from work_ground.machine import on_cores, parse_cores, process, processor_seconds

_IDLE_CLASS = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
_INT8 = """import torch as t
t.set_num_threads(1)
a, b = t.ones((2, {outer}, {inner}), dtype=t.int8)
c = t.empty(({outer}, {outer}), dtype=t.int32)
while True: t._int_mm(a, b.t(), out=c)
"""
_HOGS = {
    "spin": "while True: pass",
    "tiny-product": _INT8.format(outer=128, inner=256),
    "small-product": _INT8.format(outer=256, inner=1024),
    "product": "import numpy as n\na = n.ones((1024, 1024), n.float32)\nwhile True: a @ a",
    "stream": "import numpy as n\na = n.ones(1 << 25)\nwhile True: a.sum()",
}


@dataclass(frozen=True)
class Request:
    """Seconds after the turn's beginning, and what is asked."""

    at: float
    body: dict[str, object]


@dataclass(frozen=True)
class Turn:
    """Seconds of each request; the share of time that the hypervisor took, and how many cores the filler's
    processes had."""

    seconds: tuple[float, ...]
    stolen: float
    cores: float


@dataclass(frozen=True)
class Pair:
    """The same requests beside filler and without."""

    filled: Turn
    alone: Turn

    @property
    def is_calm(self) -> bool:
        return max(self.filled.stolen, self.alone.stolen) <= STEAL_LIMIT


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


def script(seconds: float, rate: float, model: str) -> list[Request]:
    """Requests of one turn, as they come by chance: different prompts of one length."""
    found, at = list[Request](), random.expovariate(rate)
    while at < seconds:
        words = " ".join(f"{random.randrange(10**6)}" for _ in range(12))
        body = {"model": model, "prompt": words, "max_tokens": TOKENS, "seed": random.getrandbits(31)}
        found.append(Request(at, body))
        at += random.expovariate(rate)
    return found


def play(client: httpx.Client, requests: list[Request], pids: list[int]) -> Turn:
    """Ask at the moments that the script gives, and wait for all answers. Raises httpx.HTTPError."""

    def ask(request: Request) -> float:
        time.sleep(max(0.0, start + request.at - time.perf_counter()))
        begun = time.perf_counter()
        client.post("/v1/completions", json=request.body).raise_for_status()
        return time.perf_counter() - begun

    before, spent, start = steal.read(), spent_by(pids), time.perf_counter()
    with ThreadPoolExecutor(len(requests) or 1) as pool:
        seconds = tuple(pool.map(ask, requests))
    lasted, after = time.perf_counter() - start, steal.read()
    stolen = after.share_since(before) if before and after else 0.0
    return Turn(seconds, stolen, (spent_by(pids) - spent) / lasted)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--turn", type=float, default=12, help="seconds in which requests come")
    parser.add_argument("--machine-cores", default="0-1")
    parser.add_argument("--rate", type=float, default=1.0, help="requests a second")
    parser.add_argument("--shape", default="2048,8192,2048")
    parser.add_argument("--model", default="", help="folder of the model to serve; the built-in one without")
    parser.add_argument("--filler", choices=("agent", *_HOGS), default="agent")
    arguments = parser.parse_args()
    cores = parse_cores(arguments.machine_cores)
    os.sched_setaffinity(0, os.sched_getaffinity(0) - cores or cores)
    filler = agent(cores, arguments.shape) if arguments.filler == "agent" else hogs(arguments.filler, cores)
    given = ("--model", arguments.model) if arguments.model else ()
    pairs: list[Pair] = []
    with (
        process(cores, "serve", "--listen", "127.0.0.1:0", *given) as (server, _),
        httpx.Client(base_url=f"http://{server}", timeout=120) as client,
        filler as pids,
    ):
        model = client.get("/v1/models").raise_for_status().json()["data"][0]["id"]
        play(client, script(5, arguments.rate, model), pids)
        end = time.monotonic() + arguments.seconds
        while time.monotonic() < end:
            requests = script(arguments.turn, arguments.rate, model)
            turns: dict[bool, Turn] = {}
            for filled in random.sample([True, False], 2):
                signal_all(pids, signal.SIGCONT if filled else signal.SIGSTOP)
                time.sleep(0.5)
                turns[filled] = play(client, requests, pids)
            pairs.append(Pair(turns[True], turns[False]))
        signal_all(pids, signal.SIGCONT)
    report(arguments, pairs)
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


def report(arguments: argparse.Namespace, pairs: list[Pair]) -> None:
    result = {
        "filler": arguments.filler,
        "rate": arguments.rate,
        "all": compared(pairs),
        "calm": compared([pair for pair in pairs if pair.is_calm]),
    }
    print(json.dumps(result, indent=1), flush=True)


def compared(pairs: list[Pair]) -> dict[str, object]:
    """The medians with and without, and their ratio with its 99 % interval."""
    if not pairs:
        return {"pairs": 0}
    return {
        "pairs": len(pairs),
        "requests": sum(len(pair.filled.seconds) for pair in pairs),
        "ratio_of_medians": with_interval(ratio_of_medians, pairs),
        "median_of_ratios": with_interval(median_of_ratios, pairs),
        "with": described([pair.filled for pair in pairs]),
        "without": described([pair.alone for pair in pairs]),
    }


def with_interval(figure: Callable[[Sequence[Pair]], float], pairs: list[Pair]) -> dict[str, float]:
    draws = sorted(figure(random.choices(pairs, k=len(pairs))) for _ in range(2000))
    return {"figure": figure(pairs), "low": draws[10], "high": draws[-11]}


def ratio_of_medians(pairs: Sequence[Pair]) -> float:
    """Of all requests, with filler over without: what the bar is about."""
    filled = statistics.median(one for pair in pairs for one in pair.filled.seconds)
    return filled / statistics.median(one for pair in pairs for one in pair.alone.seconds)


def median_of_ratios(pairs: Sequence[Pair]) -> float:
    """Of each request beside itself, which scatters less."""
    both = (zip(pair.filled.seconds, pair.alone.seconds, strict=True) for pair in pairs)
    return statistics.median(filled / alone for pair in both for filled, alone in pair)


def described(turns: list[Turn]) -> dict[str, float]:
    return {
        "median_seconds": statistics.median(one for turn in turns for one in turn.seconds),
        "steal": statistics.median(turn.stolen for turn in turns),
        "cores_of_filler": statistics.median(turn.cores for turn in turns),  # or it was none
    }


if __name__ == "__main__":
    main()
