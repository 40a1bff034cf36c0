"""How even the speed of this machine's processors is: `python benchmarks/core_speed.py --seconds 120`.

Every processor hashes a quarter of a megabyte sixteen times, again and again: it fits into a cache of its
own, so that neither memory nor system calls play a part. What changes is the processor's speed: its clock,
and on a virtual machine, it may be, a neighbour on the other half of the core, which a guest cannot see and
which is not `steal`. An account at the smallest times (docs/work.md) credits a machine with its mean speed
over its best one, so `mean_over_best` is about what such an account can show here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

from ullage.work import steal

_DATA = bytes(1 << 18)
_TIMES = 16
_LEAST = 20


def hash_on(cpu: int, seconds: float, answer: Connection) -> None:
    """Seconds of each sixteen hashes on this processor."""
    os.sched_setaffinity(0, {cpu})
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(_TIMES):
            hashlib.sha256(_DATA).digest()
        times.append(time.perf_counter() - start)
    answer.send(times)


def all_busy(cpus: list[int], seconds: float) -> dict[int, list[float]]:
    """The same, by processor, with all of these busy."""
    context = get_context("fork")
    pipes = {cpu: context.Pipe(duplex=False) for cpu in cpus}
    workers = [context.Process(target=hash_on, args=(cpu, seconds, pipes[cpu][1])) for cpu in cpus]
    for worker in workers:
        worker.start()
    found = {cpu: pipe[0].recv() for cpu, pipe in pipes.items()}
    for worker in workers:
        worker.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--cores", default="", help="processors, such as 0,1; all of them by default")
    arguments = parser.parse_args()
    cpus = sorted(int(one) for one in arguments.cores.split(",") if one) or sorted(os.sched_getaffinity(0))
    before = steal.read()
    by_cpu = all_busy(cpus, arguments.seconds)
    after = steal.read()
    every = sorted(seconds for times in by_cpu.values() for seconds in times)
    best = every[min(_LEAST, len(every) - 1)]  # not the very smallest: a clock may jump
    mean = sum(map(len, by_cpu.values())) / (len(cpus) * arguments.seconds)
    result = {
        "processors": len(cpus),
        "timed": len(every),
        "steal": round(after.share_since(before), 4) if before and after else None,
        "best_ms": round(1e3 * best, 2),
        "median_ms": round(1e3 * statistics.median(every), 2),
        "slowest_tenth_ms": round(1e3 * every[len(every) * 9 // 10], 2),
        "mean_over_best": round(mean * best, 3),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
