"""Tenants over recorded units: `python benchmarks/work_traces.py [--record 120] [--traces 400]`.

Records how long an honest slot's units take here (`--out FILE` keeps the trace, `--trace FILE` replays one),
takes every fourth block of it as the calibration, and replays the rest: tenants of 5, 10, 20 and 50 %, spread
over time or in bursts, from a random moment of the third window on. Prints how many were flagged in time,
with the 99 % limits of Clopper and Pearson, and false alarms over honest windows.

`--clock processor` takes the processor time of the unit's thread: what a unit costs on a machine where
others run, without the time they take from it (that they slow caches and clocks stays in). `--clock wall`, on
a quiet machine, leaves nothing out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import beta

from ullage.redteam.work.replay import BLOCK, Floats, Pattern, Setting, alarm_after, fractions
from ullage.work.protocol import Hello, Job, Mode
from ullage.work.prover import Prover
from ullage.work.shape import Shape

TENANTS = {0.05: 1800.0, 0.1: 600.0, 0.2: 120.0, 0.5: 120.0}
"""Share of a tenant, and the seconds within which it is wanted flagged."""
HONEST_BEFORE = 2
"""Windows before a tenant begins, unless `--honest-before` says otherwise."""
CONFIDENCE = 0.99


def record(shape: Shape, seconds: float, clock: str) -> Floats:
    """Seconds of each honest unit, in one thread."""
    torch.set_num_threads(1)
    now = time.thread_time if clock == "processor" else time.perf_counter
    prover = Prover()
    prover.start(Hello(Mode.OPENINGS, shape, 1, bytes(16)))
    times: list[float] = []
    for number in range(-3, 10**9):  # three to warm up
        begin = now()
        prover.work(Job(abs(number), os.urandom(32)))
        if number >= 0:
            times.append(now() - begin)
        prover.forget(abs(number))
        if sum(times) > seconds:
            break
    return np.array(times)


def split(trace: Floats, *, first: bool) -> tuple[Floats, Floats]:
    """(calibration, rest): every fourth block, or the first quarter, and what is left."""
    places = np.arange(len(trace))
    chosen = places < len(trace) // 4 if first else places // BLOCK % 4 == 0
    return trace[chosen], trace[~chosen]


def without_drift(trace: Floats) -> Floats:
    """Every block scaled to the mean of all: the scatter of units without that of the machine's speed."""
    whole = len(trace) // BLOCK * BLOCK
    blocks = trace[:whole].reshape(-1, BLOCK)
    return np.asarray((blocks / blocks.mean(axis=1, keepdims=True)).reshape(-1) * trace.mean())


def interval(hits: int, of: int) -> tuple[float, float]:
    low = float(beta.ppf((1 - CONFIDENCE) / 2, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf((1 + CONFIDENCE) / 2, hits + 1, of - hits)) if hits < of else 1.0
    return low, high


def honest_row(
    trace: Floats, setting: Setting, traces: int, generator: np.random.Generator
) -> dict[str, object]:
    """Accounts of 30 windows without a tenant."""
    honest = [fractions(trace, setting, 30, generator) for _ in range(traces)]
    false = sum(alarm_after(one, setting, 0.0) is not None for one in honest)
    return {
        "tenant": 0,
        "windows": 30 * traces,
        "fraction": round(float(np.mean(honest)), 4),
        "fraction_sd": round(float(np.std(honest)), 5),
        "accounts_with_an_alarm": false,
        "at_most": round(interval(false, traces)[1], 4),
    }


def tenant_row(
    trace: Floats, setting: Setting, share: float, pattern: Pattern,
    *, traces: int, before: int, generator: np.random.Generator,
) -> dict[str, object]:  # fmt: skip
    """How many accounts with this tenant sounded the alarm in time."""
    limit = TENANTS[share]
    windows = before + 2 + int(limit / setting.window_seconds)
    times = []
    for _ in range(traces):
        begin = (before + generator.random()) * setting.window_seconds
        found = fractions(trace, setting, windows, generator, share=share, pattern=pattern, begin=begin)
        times.append(alarm_after(found, setting, begin))
    flagged = sum(time is not None and 0 <= time <= limit for time in times)
    low, high = interval(flagged, traces)
    known = sorted(time for time in times if time is not None)
    return {
        "tenant": share,
        "pattern": pattern.value,
        "limit_seconds": limit,
        "flagged": flagged,
        "of": traces,
        "low": round(low, 4),
        "high": round(high, 4),
        "median_seconds": round(known[len(known) // 2], 1) if known else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", type=float, default=120, help="seconds of units to record")
    parser.add_argument("--traces", type=int, default=400, help="replays of each tenant")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--shape", default="2048,8192,2048")
    parser.add_argument("--clock", choices=("processor", "wall"), default="wall")
    parser.add_argument("--out", type=Path, help="keep the trace here")
    parser.add_argument("--trace", type=Path, help="replay this trace")
    parser.add_argument(
        "--calibrate-first", action="store_true", help="calibrate on the first quarter of the trace"
    )
    parser.add_argument(
        "--without-drift",
        action="store_true",
        help="take out slow changes of the machine's speed: a simulation",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--honest-windows", type=int, default=0, help="replayed from the calibration's part")
    parser.add_argument("--honest-before", type=int, default=HONEST_BEFORE, help="windows before a tenant")
    arguments = parser.parse_args()
    if arguments.trace:
        trace = np.array(json.loads(arguments.trace.read_text("utf-8")), dtype=np.float64)
    else:
        trace = record(Shape.parse(arguments.shape), arguments.record, arguments.clock)
    if arguments.out:
        arguments.out.write_text(json.dumps([round(float(t), 6) for t in trace]), "utf-8")
    if arguments.without_drift:
        trace = without_drift(trace)
    calibration, rest = split(trace, first=arguments.calibrate_first)
    setting = Setting(arguments.slots, float(np.median(calibration)))
    generator = np.random.default_rng(arguments.seed)
    if arguments.honest_windows:
        honest = fractions(calibration, setting, arguments.honest_windows, generator)
        setting = replace(setting, honest=tuple(float(fraction) for fraction in honest))
    print(
        json.dumps(
            {
                "units": len(trace),
                "median_ms": round(setting.median * 1e3, 2),
                "scatter": round(float(rest.std() / rest.mean()), 4),
                "rest_over_calibration": round(float(np.median(rest)) / setting.median, 4),
                "expected": round(setting.alarm().expected, 4),
                "limit": round(setting.alarm().limit, 4),
            }
        )
    )
    print(json.dumps(honest_row(rest, setting, arguments.traces, generator)))
    for share in TENANTS:
        for pattern in Pattern:
            row = tenant_row(
                rest, setting, share, pattern, traces=arguments.traces, before=arguments.honest_before,
                generator=generator,
            )  # fmt: skip
            print(json.dumps(row))


if __name__ == "__main__":
    main()
