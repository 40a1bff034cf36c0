"""How much what runs on the machine slows the companion: `python benchmarks/work_companion.py --rounds 6`.

The companion does units on its core; on the machine's core there is in turns nothing, honest filler, a
tenant that copies memory without end, and one that multiplies float32 matrices. A tenant that slows the
companion by s, against honest filler, hides as much: the account over the companion's rises by 1 / (1 - s).
Turns alternate, so that drift falls on all of them; medians of rounds, with their range.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

import numpy as np

from ullage.errors import FaultError
from ullage.work import steal
from ullage.work.protocol import Hello, Job, Mode
from ullage.work.prover import Prover
from ullage.work.shape import Shape

SHAPE = Shape(2048, 8192, 2048)
NEIGHBOURS = ("nothing", "filler", "copies", "products")
_COPIED = 256 << 20
"""Bytes: far more than any cache holds."""


def prover() -> Prover:
    """An honest slot in this process."""
    import torch

    torch.set_num_threads(1)
    made = Prover()
    made.start(Hello(Mode.OPENINGS, SHAPE, 1, bytes(16)))
    return made


def unit(slot: Prover, number: int) -> None:
    slot.work(Job(number, os.urandom(32)))
    slot.forget(number)


def neighbour(kind: str, cpu: int, ready: Event, stop: Event) -> None:
    """Keep this processor busy in one of these ways until told to stop."""
    os.sched_setaffinity(0, {cpu})
    import torch

    slot = prover()
    source = np.ones(_COPIED // 8)
    target = np.empty_like(source)
    matrix = torch.ones((1024, 1024))
    number = 0
    ready.set()
    while not stop.is_set():
        number += 1
        if kind == "filler":
            unit(slot, number)
        elif kind == "copies":
            np.copyto(target, source)
        elif kind == "products":
            _ = matrix @ matrix
        else:
            stop.wait(0.1)


def companion(cpu: int, orders: Connection) -> None:
    """Do units for as many seconds as asked, and answer with the units a second."""
    os.sched_setaffinity(0, {cpu})
    slot = prover()
    number = 0
    while (seconds := orders.recv()) > 0:
        begin, done = time.perf_counter(), 0
        while (spent := time.perf_counter() - begin) < seconds or not done:
            number, done = number + 1, done + 1
            unit(slot, number)
        orders.send(done / spent)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine-core", type=int, default=0)
    parser.add_argument("--companion-core", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6, help="of a turn")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    working = context.Process(target=companion, args=(arguments.companion_core, theirs), daemon=True)
    working.start()
    theirs.close()
    rates: dict[str, list[float]] = {kind: [] for kind in NEIGHBOURS}
    before = steal.read()
    for turn in range(arguments.rounds):
        for kind in NEIGHBOURS if turn % 2 else NEIGHBOURS[::-1]:
            ready, stop = context.Event(), context.Event()
            beside = context.Process(
                target=neighbour, args=(kind, arguments.machine_core, ready, stop), daemon=True
            )
            beside.start()
            if not ready.wait(60):
                raise FaultError("What is to run beside the companion did not start.")
            ours.send(arguments.seconds)
            rates[kind].append(ours.recv())
            stop.set()
            beside.join()
    ours.send(0.0)
    working.join()
    after = steal.read()
    slowed = {
        kind: [1 - rate / filler for rate, filler in zip(rates[kind], rates["filler"], strict=True)]
        for kind in NEIGHBOURS
    }
    print(
        json.dumps(
            {
                "units_a_second": {kind: round(statistics.median(found), 3) for kind, found in rates.items()},
                "slowed_against_filler": {
                    kind: {
                        "median": round(statistics.median(found), 4),
                        "range": [round(min(found), 4), round(max(found), 4)],
                    }
                    for kind, found in slowed.items()
                },
                "steal": after.share_since(before) if before and after else None,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
