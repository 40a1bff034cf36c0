"""Live tenants: `python benchmarks/work_tenants.py --share 0.2 --runs 20 --out tenants.jsonl`.

Every run is a fresh agent whose slots give a share of their time to a tenant (the red team's `tenant-10`
and `tenant-20`), accounted live in windows of 60 s until the alarm sounds. Stops after `--minutes`; called
again with the same `--out` it goes on with the runs that are missing, under the calibration kept there. A
share of 0 runs honest agents for ten windows each: no alarm is wanted. Windows from which the hypervisor took
time say nothing, as in any account: a run goes on until enough others were seen, for at most three times as
many. The machine has to be quiet; with `--beside` an honest run follows each tenant, watched for as long as
a tenant may take, and shows whether it was: a tenant flagged where honest agents are flagged too proves
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ullage.errors import UndecidedError
from ullage.redteam.work.agent import running_agent
from ullage.redteam.work.registry import HONEST
from ullage.work.calibration import Calibration, measure
from ullage.work.run import Accounting, Plan
from ullage.work.shape import Shape
from ullage.work.twin import check_quiet, measure_honest
from ullage.work.verifier import DEPTH, Terms

NAMES = {0.0: HONEST, 0.05: "tenant-5", 0.1: "tenant-10", 0.2: "tenant-20", 0.5: "tenant-50"}
LIMITS = {0.0: 10, 0.05: 30, 0.1: 10, 0.2: 2, 0.5: 2}
"""Windows of 60 s within which a tenant is wanted flagged; an honest agent is watched for ten. Those that say
something count."""
_CALIBRATIONS = 5
"""Tried at most, until one is there from which the hypervisor took nothing to speak of."""
_MOST = 3
"""So many times as long a run may take."""


def run(
    calibration: Calibration, share: float, windows: int, seconds: float, openings: int
) -> dict[str, Any]:
    """One live account, to the alarm or to its end."""
    worth = calibration.worth
    alarm = calibration.alarm(seconds, DEPTH)
    seen, outcomes = [], []
    with running_agent(NAMES[share], calibration.slots) as (host, port):
        terms = Terms(host, port, calibration.slots, calibration.unit_shape)
        for window in Accounting(Plan(terms, worth, seconds, _MOST * windows, openings)).windows():
            seen.append(round(window.accounted(median=True), 4))
            outcomes.append(window.outcome.value)
            if window.is_told:
                alarm.add(window.accounted(median=True))
            if alarm.fired_at or alarm.seen == windows:
                break
    return {
        "share": share,
        "flagged_at": alarm.fired_at,
        "told": alarm.seen,
        "in_time": alarm.fired_at is not None and alarm.fired_at <= LIMITS[share],
        "fractions": seen,
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
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    rows: list[dict[str, Any]] = []
    if arguments.out.exists():
        rows = [json.loads(line) for line in arguments.out.read_text("utf-8").splitlines()]
        calibration = Calibration.model_validate(rows[0]["calibration"])
    else:
        shape = Shape.parse(arguments.shape)
        for _ in range(_CALIBRATIONS):
            calibration = measure("this machine", shape, arguments.slots, arguments.calibrate, None)
            if not calibration.was_disturbed:
                break
        else:
            raise UndecidedError("The hypervisor took time from every calibration: run on a quiet machine.")
        if arguments.honest_windows:
            honest = check_quiet(measure_honest(calibration, arguments.honest_windows, arguments.window))
            calibration = calibration.model_copy(update={"honest": honest})
        rows = [{"calibration": calibration.model_dump(mode="json")}]
        arguments.out.write_text(json.dumps(rows[0]) + "\n", "utf-8")
    done = [row for row in rows[1:] if row["share"] == arguments.share and "beside" not in row]
    beside = [row for row in rows[1:] if row.get("beside") == arguments.share]
    longest = (_MOST * LIMITS[arguments.share] * arguments.window + 20) * (2 if arguments.beside else 1)
    while len(done) < arguments.runs and time.monotonic() + longest < end:
        done.append(
            run(calibration, arguments.share, LIMITS[arguments.share], arguments.window, arguments.openings)
        )
        with arguments.out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(done[-1]) + "\n")
        sys.stderr.write(json.dumps(done[-1]) + "\n")
        if arguments.beside:
            fair = run(calibration, 0.0, LIMITS[arguments.share], arguments.window, arguments.openings)
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
