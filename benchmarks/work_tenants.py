"""Live tenants: `python benchmarks/work_tenants.py --share 0.2 --runs 20 --out tenants.jsonl`.

Every run is a fresh agent whose slots give a share of their time to a tenant (the red team's `tenant-10`
and `tenant-20`), accounted live in windows of 60 s until the alarm sounds. Stops after `--minutes`; called
again with the same `--out` it goes on with the runs that are missing, under the calibration kept there. A
share of 0 runs honest agents for ten windows each: no alarm is wanted. Windows from which the hypervisor took
time say nothing, as in any account: a run goes on until enough others were seen, for at most three times as
many. The machine has to be quiet; with `--beside` an honest run follows each tenant, watched for as long as
a tenant may take, and shows whether it was: a tenant flagged where honest agents are flagged too proves
nothing.

`--machine-cores 0-1 --companion-cores 2-3` puts the machine on some cores and a companion on others, where
the verifier runs too; `--honest-windows 20` then measures the alarm beside it. The alarm judges what the
machine did over what the companion did, whatever the hypervisor took from both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ullage.errors import UndecidedError
from ullage.redteam.work.agent import running_agent
from ullage.redteam.work.registry import HONEST
from ullage.work.calibration import Calibration, HonestWindows, measure
from ullage.work.companion import kept_busy
from ullage.work.run import Accounting, Plan
from ullage.work.shape import Shape
from ullage.work.twin import check_quiet
from ullage.work.verifier import DEPTH, Terms
from work_ground.machine import companion_on, on_cores, parse_cores

NAMES = {0.0: HONEST, 0.05: "tenant-5", 0.1: "tenant-10", 0.2: "tenant-20", 0.5: "tenant-50"}
LIMITS = {0.0: 10, 0.05: 30, 0.1: 10, 0.2: 2, 0.5: 2}
"""Windows of 60 s within which a tenant is wanted flagged; an honest agent is watched for ten. Those that say
something count."""
_CALIBRATIONS = 5
"""Tried at most, until one is there from which the hypervisor took nothing to speak of."""
_MOST = 3
"""So many times as long a run may take."""


@dataclass(frozen=True)
class Setting:
    """What is the same in every run. `companion`: its agent, if there is one."""

    calibration: Calibration
    seconds: float
    openings: int
    cores: frozenset[int]
    companion: Terms | None
    quiet: bool = False
    """Whether no alarm ends a run."""


def run(setting: Setting, share: float, windows: int) -> dict[str, Any]:
    """One live account, to the alarm or to its end."""
    calibration, seconds = setting.calibration, setting.seconds
    alarm = calibration.alarm(seconds, DEPTH, beside=setting.companion is not None)
    seen: list[float] = []
    judged: list[float | None] = []
    outcomes, steal = [], []
    with contextlib.ExitStack() as stack:
        with on_cores(setting.cores):
            host, port = stack.enter_context(running_agent(NAMES[share], calibration.slots))
        terms = Terms(host, port, calibration.slots, calibration.unit_shape)
        plan = Plan(
            terms,
            calibration.worth,
            seconds,
            _MOST * windows,
            setting.openings,
            companion=setting.companion,
        )
        account = stack.enter_context(contextlib.closing(Accounting(plan).windows()))
        for window in account:
            seen.append(round(window.accounted(median=True), 4))
            judged.append(None if window.judged is None else round(window.judged, 4))
            outcomes.append(window.outcome.value)
            steal.append(window.steal)
            alarm.add_all([window])
            if (alarm.fired_at and not setting.quiet) or alarm.seen == windows:
                break
    return {
        "share": share,
        "flagged_at": alarm.fired_at,
        "told": alarm.seen,
        "in_time": alarm.fired_at is not None and alarm.fired_at <= LIMITS[share],
        "limit": alarm.limit,
        "expected": alarm.expected,
        "fractions": seen,
        "judged": judged,
        "steal": steal,
        "at": time.time(),
        "outcomes": outcomes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, choices=sorted(NAMES), default=0.2)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=33)
    parser.add_argument("--window", type=float, default=60)
    parser.add_argument("--slots", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shape", default="2048,8192,2048")
    parser.add_argument("--openings", type=int, default=360)
    parser.add_argument("--calibrate", type=float, default=30, help="seconds of whole units")
    parser.add_argument("--beside", action="store_true", help="an honest run after each tenant")
    parser.add_argument("--honest-windows", type=int, default=0, help="for the alarm, before the first run")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; an existing file is continued")
    parser.add_argument("--machine-cores", default="", help="cores of the machine, such as 0-1; all without")
    parser.add_argument("--companion-cores", default="", help="cores of a companion; none without")
    arguments = parser.parse_args()
    cores = parse_cores(arguments.machine_cores)
    if arguments.machine_cores:
        arguments.slots = len(cores)
    with contextlib.ExitStack() as stack:
        play(arguments, cores, companion_on(stack, arguments.companion_cores, arguments.shape))


def calibrated(arguments: argparse.Namespace, cores: frozenset[int], companion: Terms | None) -> Calibration:
    """A new calibration of these cores, with honest windows if they are asked for."""
    shape = Shape.parse(arguments.shape)
    for _ in range(_CALIBRATIONS):
        with kept_busy(companion), on_cores(cores):
            calibration = measure("this machine", shape, arguments.slots, arguments.calibrate, None)
        if companion or not calibration.was_disturbed:
            break
    else:
        raise UndecidedError("The hypervisor took time from every calibration: run on a quiet machine.")
    if not arguments.honest_windows:
        return calibration
    # Not the calibration's own command: with the verifier where it is in every other run.
    setting = Setting(calibration, arguments.window, arguments.openings, cores, companion, quiet=True)
    shown = run(setting, 0.0, arguments.honest_windows)["judged"]
    honest = HonestWindows(
        seconds=arguments.window,
        fractions=tuple(fraction for fraction in shown if fraction is not None),
        companion_slots=companion.slots if companion else None,
    )
    return calibration.model_copy(update={"honest": check_quiet(honest)})


def play(arguments: argparse.Namespace, cores: frozenset[int], companion: Terms | None) -> None:
    """All runs that are missing."""
    end = time.monotonic() + 60 * arguments.minutes
    rows: list[dict[str, Any]] = []
    if arguments.out.exists():
        rows = [json.loads(line) for line in arguments.out.read_text("utf-8").splitlines()]
        calibration = Calibration.model_validate(rows[0]["calibration"])
    else:
        calibration = calibrated(arguments, cores, companion)
        rows = [{"calibration": calibration.model_dump(mode="json")}]
        arguments.out.write_text(json.dumps(rows[0]) + "\n", "utf-8")
    setting = Setting(calibration, arguments.window, arguments.openings, cores, companion)
    done = [row for row in rows[1:] if row["share"] == arguments.share and "beside" not in row]
    beside = [row for row in rows[1:] if row.get("beside") == arguments.share]
    most = 1 if companion else _MOST
    longest = (most * LIMITS[arguments.share] * arguments.window + 20) * (2 if arguments.beside else 1)
    while len(done) < arguments.runs and time.monotonic() + longest < end:
        done.append(run(setting, arguments.share, LIMITS[arguments.share]))
        with arguments.out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(done[-1]) + "\n")
        sys.stderr.write(json.dumps(done[-1]) + "\n")
        if arguments.beside:
            fair = run(setting, 0.0, LIMITS[arguments.share])
            beside.append({**fair, "beside": arguments.share})
            with arguments.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(beside[-1]) + "\n")
    flagged = sum(row["in_time"] for row in done)
    windows = sum(len(row["fractions"]) for row in done)
    untold = sum(row["outcomes"].count("cannot-tell") for row in done)
    print(
        json.dumps(
            {
                "share": arguments.share,
                "runs": len(done),
                "of": arguments.runs,
                "said_nothing": sum(
                    row["told"] < LIMITS[row["share"]] and not row["flagged_at"] for row in done
                ),
                "flagged_in_time": flagged,
                "within_windows": LIMITS[arguments.share],
                "windows": windows,
                "cannot_tell": untold,
                "honest_beside": len(beside),
                "honest_beside_flagged": sum(row["flagged_at"] is not None for row in beside),
                "honest_beside_windows": sum(len(row["fractions"]) for row in beside),
            }
        )
    )


if __name__ == "__main__":
    main()
