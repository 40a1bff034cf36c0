"""What decoding is credited with, beside what it took: `python benchmarks/work_pricing.py --rates 0.3,1,2`.

Times the built-in model's server at batches of one to sixteen, then serves each load (multiples of a quarter
of what saturates it) for `--seconds`, without filler. Prints the server's processor time, and shares of it
that are credited: at the price of the largest batch of a record's life, and as the least that any schedule
can have cost, with all timed batches and with doublings only, on a machine of `--slots`. `--simulate` replays
a server of about the same cost instead: no process, exact costs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time

import numpy as np

from ullage.work.inference import Costs, Served, credit
from work_ground.load import BATCHES, TOKENS, Load, inference_times
from work_ground.machine import process, processor_seconds

DOUBLINGS = (1, 2, 4, 8, 16)


def shares(served: list[Served], costs: Costs, slots: list[int], spent: float) -> dict[str, float]:
    """Credited seconds over those that were spent; and how many records were open."""
    start, end = (np.array([getattr(one, name) for one in served]) for name in ("start", "end"))
    peaks = [
        max(_open(start, end, start[(start >= a) & (start <= b)])) for a, b in zip(start, end, strict=True)
    ]
    prompts = sum(len(one.prompt) for one in served) * costs.prefill
    found = {
        "records": len(served),
        "open_mean": float((end - start).sum() / (end.max() - start.min())),
        "open_at_fullest_mean": float(np.mean(peaks)),
    }
    doublings = tuple(pair for pair in costs.decode if pair[0] in DOUBLINGS)
    for name, used in (("", costs), ("_doublings", Costs(costs.prefill, doublings, costs.operations))):
        prices = [used.decode_seconds(peak) for peak in peaks]
        decoding = sum((len(one.output) - 1) * price for one, price in zip(served, prices, strict=True))
        found[f"at_the_peak{name}"] = (prompts + decoding) / spent
        for count in slots:
            seconds = sum(one.seconds for one in credit(served, used, count))
            found[f"least{name}_slots_{count}"] = seconds / spent
    return found


def _open(start: np.ndarray, end: np.ndarray, times: np.ndarray) -> list[int]:
    return [int(((start <= t) & (end >= t)).sum()) for t in times]


def live(rates: list[float], seconds: float, slots: list[int]) -> None:
    with process(frozenset(os.sched_getaffinity(0)), "serve", "--listen", "127.0.0.1:0") as (server, pid):
        load = Load(server, 1.0)
        times, saturated = inference_times(load, pid, max(2.0, seconds / 10))
        print(
            json.dumps(
                {
                    "ms_a_token": {b: round(s * 1e3, 3) for b, s in times.decode},
                    "prefill_ms": times.prefill * 1e3,
                }
            )
        )
        load.rate = saturated / 4
        for rate in rates:
            load.clear()
            before, begin = processor_seconds(pid), time.monotonic()
            load.run((rate,), seconds)
            spent, took = processor_seconds(pid) - before, time.monotonic() - begin
            found = shares(load.served, times.costs(), slots, spent)
            print(json.dumps({"load": rate, "processors": spent / took, **found}), flush=True)


def simulated(rates: list[float], seconds: float, slots: list[int]) -> None:
    """Requests at random to a server that steps all it has, 9.6 + 1.3 b ms of 0.9 processors."""
    steps = [9.6e-3 + 1.3e-3 * rows for rows in range(1, 200)]
    costs = Costs(1e-12, tuple((rows, steps[rows - 1] / rows) for rows in BATCHES), 0.0)
    for rate in rates:
        chance = random.Random(0)
        arrivals = np.cumsum([chance.expovariate(2.5 * rate) for _ in range(int(2.5 * rate * seconds))])
        served, spent = serve(arrivals.tolist(), steps, 0.9)
        print(
            json.dumps({"load": rate, "simulated": True, **shares(served, costs, slots, spent)}), flush=True
        )


def serve(arrivals: list[float], steps: list[float], cores: float) -> tuple[list[Served], float]:
    now = spent = 0.0
    left: dict[int, int] = {}
    served = []
    coming = list(enumerate(arrivals))[::-1]
    while coming or left:
        now = max(now, coming[-1][1]) if not left else now
        while coming and coming[-1][1] <= now:
            left[coming.pop()[0]] = TOKENS
        spent += steps[len(left) - 1]
        now += steps[len(left) - 1] / cores
        for number in [n for n, tokens in left.items() if tokens == 1]:
            ids = tuple(number * 100 + n for n in range(TOKENS + 2))
            served.append(Served(number, int(arrivals[number] * 1e9), int(now * 1e9), ids[:1], ids[1:], True))
        left = {number: tokens - 1 for number, tokens in left.items() if tokens > 1}
    return served, spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rates", default="0.3,1,2,4")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--slots", default="2", help="of the machine; several with commas")
    parser.add_argument("--simulate", action="store_true")
    arguments = parser.parse_args()
    rates = [float(rate) for rate in arguments.rates.split(",")]
    slots = [int(count) for count in arguments.slots.split(",")]
    (simulated if arguments.simulate else live)(rates, arguments.seconds, slots)


if __name__ == "__main__":
    main()
