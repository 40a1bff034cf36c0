"""A live account of this machine under a mixed load: `python benchmarks/work_accounting.py --seconds 1800`.

Calibrates this machine (it is its own twin), times inference on it, serves the built-in model under a load
that goes from idle to saturated and back, and lets the agent fill the rest. Prints the accounted fraction at
the smallest and at the median times, false alarms, the p50 latency with and without filler at the same rate
(without: before the account and after it, so that drift shows; with the interval of a bootstrap),
and the cost of verification. `--tenant 0.2` adds a second tenant of that share after the first third. The
client's own transcript stands for the audited log. `--out` adds the run to a file of JSON lines and prints
windows and alarms of all runs in it.

`--machine-cores 0-2` gives agent and server these cores and leaves the others to the verifier and the load,
which are not part of the machine. The load's unit is a quarter of what the server can do, so 4 saturates it.
Takes a fifth longer than `--seconds`, and 1.5 minutes, and what the honest windows take.

`--loaded-windows 8` accounts for so many windows under the same load first, and prices inference for the
alarm by what it took then (`usual`). `--honest-from FILE` takes the alarm's honest windows from the first
line of a file of `work_tenants.py`, where they were measured on the same cores.

`--companion-cores 3` puts a companion on some of the others: the alarm then judges what the machine did over
what the companion did, whatever the hypervisor took from both. It works while units and inference are timed,
and while latency is measured without filler, as it does beside the account. Honest windows are measured with
the agent and server of the account, before the load, beside the companion if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

from ullage.errors import UndecidedError, UsageError
from ullage.work.calibration import Calibration, HonestWindows, measure
from ullage.work.companion import kept_busy
from ullage.work.datasheet import cpu_nameplate, read_cpuinfo
from ullage.work.inference import credit, steps_within
from ullage.work.run import Accounting, Plan, with_inference
from ullage.work.shape import Shape
from ullage.work.stream import parse_address
from ullage.work.twin import check_quiet
from ullage.work.usual import usual_factors
from ullage.work.verifier import DEPTH, Terms
from ullage.work.window import Outcome, Window, add_up
from work_ground.load import Load, inference_times
from work_ground.machine import companion_on, on_cores, parse_cores, process

PHASES = (0.0, 0.3, 1.0, 4.0, 1.0, 0.3)
"""Load, as multiples of `--rate`, in turns."""


def tenant(share: float, slots: int, seconds: float) -> list[subprocess.Popen[bytes]]:
    """Processes that keep this share of the slots busy, at normal priority."""
    code = (
        "import sys,time\nshare=float(sys.argv[1]);end=time.time()+float(sys.argv[2])\n"
        "while time.time()<end:\n t=time.time()\n while time.time()-t<0.05*share: pass\n"
        " time.sleep(0.05*(1-share))\n"
    )
    command = [sys.executable, "-c", code, str(share), str(seconds)]
    return [subprocess.Popen(command) for _ in range(slots)]


def measured_honest(plan: Plan) -> HonestWindows:
    """What these windows show of a machine that is honest. Raises UndecidedError if they scatter too much."""
    with contextlib.closing(Accounting(plan).windows()) as account:
        shown = tuple(window.judged for window in account if window.judged is not None)
    if len(shown) < 2:
        raise UndecidedError("Too few honest windows say something: run on a quiet machine.")
    honest = HonestWindows(
        seconds=plan.window_seconds,
        fractions=shown,
        companion_slots=plan.companion.slots if plan.companion else None,
    )
    return check_quiet(honest)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--window", type=float, default=60)
    parser.add_argument("--machine-cores", default="", help="cores of the machine, such as 0-2; all without")
    parser.add_argument("--companion-cores", default="", help="cores of a companion; none without")
    parser.add_argument("--slots", type=int, help="as many as the machine's cores without")
    parser.add_argument("--shape", default="2048,8192,2048")
    parser.add_argument(
        "--rate", type=float, help="requests a second at load 1; a quarter of what is possible"
    )
    parser.add_argument("--openings", type=int, default=360)
    parser.add_argument("--calibrate", type=float, default=30, help="seconds of whole units")
    parser.add_argument(
        "--honest-windows", type=int, default=0, help="to set the alarm by, before the account"
    )
    parser.add_argument("--honest-from", type=Path, help="honest windows of a file of work_tenants.py")
    parser.add_argument("--loaded-windows", type=int, default=0, help="to price inference by for the alarm")
    parser.add_argument("--tenant", type=float, default=0.0)
    parser.add_argument("--out", type=Path, help="JSON lines: add this run, and print all runs together")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        account(arguments, stack)


def account(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    """Calibrate, serve, fill, report. Processes live as long as `stack`."""
    cores = parse_cores(arguments.machine_cores)
    slots = arguments.slots or len(cores)
    if arguments.machine_cores:  # the verifier and the load get what is left
        os.sched_setaffinity(0, os.sched_getaffinity(0) - cores or cores)
    companion = companion_on(stack, arguments.companion_cores, arguments.shape)
    with kept_busy(companion), on_cores(cores):
        sheet = cpu_nameplate(slots, read_cpuinfo())
        calibration = measure("this machine", Shape.parse(arguments.shape), slots, arguments.calibrate, sheet)
    server, pid = stack.enter_context(process(cores, "serve", "--listen", "127.0.0.1:0"))
    load = Load(server, arguments.rate or 1.0)
    short = max(6.0, min(180.0, arguments.seconds / 10))
    with kept_busy(companion):
        times, saturated = inference_times(load, pid, max(2.0, min(10.0, short / 4)))
        load.rate = arguments.rate or saturated / 4
        alone = load.latency_alone(short)
    calibration = calibration.model_copy(update={"inference": times})
    command = ("work", "agent", "--listen", "127.0.0.1:0", "--slots", str(slots))
    with process(cores, *command) as (agent, _):
        count = max(1, round(arguments.seconds / arguments.window))
        terms = Terms(*parse_address(agent), slots, calibration.unit_shape)
        plan = Plan(
            terms, calibration.worth, arguments.window, count, arguments.openings, companion=companion
        )
        if arguments.honest_windows:
            honest = measured_honest(replace(plan, windows=arguments.honest_windows))
            calibration = calibration.model_copy(update={"honest": honest})
        if arguments.honest_from:
            kept = kept_honest(arguments.honest_from, plan)
            calibration = calibration.model_copy(update={"honest": kept})
        if arguments.loaded_windows:
            few = Accounting(replace(plan, windows=arguments.loaded_windows))
            usual = usual_of(calibration, under_load(few, load, cores), load)
            times = times.model_copy(update={"usual": usual})
            calibration = calibration.model_copy(update={"inference": times})
            load.clear()
        accounting = Accounting(plan)
        windows = under_load(accounting, load, cores, arguments.tenant)
    with kept_busy(companion):
        after = Load(server, load.rate).latency_alone(short)
    report(arguments, calibration, windows, load, (alone, after), accounting)


def kept_honest(path: Path, plan: Plan) -> HonestWindows:
    """The honest windows of another run. Raises UsageError for those of another kind of account."""
    first = path.read_text("utf-8").splitlines()[0]
    honest = Calibration.model_validate(json.loads(first)["calibration"]).honest
    slots = plan.companion.slots if plan.companion else None
    if honest is None or honest.companion_slots != slots:
        raise UsageError(f"{path} has no honest windows beside a companion of {slots} slots.")
    return check_quiet(honest)


def usual_of(calibration: Calibration, windows: list[Window], load: Load) -> tuple[float, float]:
    """What inference took in these windows, over what the log shows of it."""
    assert calibration.inference is not None
    beside = any(window.companion is not None for window in windows)
    expected = calibration.shows_honest(windows[0].seconds, DEPTH, beside=beside)
    earned = credit(load.served, calibration.inference.costs(), calibration.slots)
    return usual_factors(with_inference(windows, earned), earned, expected).factors


def under_load(accounting: Accounting, load: Load, cores: frozenset[int], share: float = 0.0) -> list[Window]:
    """The windows while the load goes through its phases, with a tenant after the first third if asked."""
    plan = accounting.plan
    phase_seconds = plan.windows * plan.window_seconds / len(PHASES)
    loader = threading.Thread(target=load.run, args=(PHASES, phase_seconds), daemon=True)
    windows: list[Window] = []
    tenants: list[subprocess.Popen[bytes]] = []
    loader.start()
    for window in accounting.windows():
        windows.append(window)
        if share and not tenants and len(windows) >= plan.windows // 3:
            with on_cores(cores):
                tenants = tenant(share, plan.terms.slots, plan.windows * plan.window_seconds)
    loader.join(phase_seconds)
    for one in tenants:
        one.terminate()
    return windows


def report(  # noqa: PLR0917 - all that is known at the end
    arguments: argparse.Namespace,
    calibration: Calibration,
    windows: list[Window],
    load: Load,
    alone: tuple[list[float], list[float]],
    accounting: Accounting,
) -> None:
    assert calibration.inference is not None
    worth, beside = calibration.worth, bool(arguments.companion_cores)
    earned = credit(load.served, calibration.inference.costs(), calibration.slots)
    windows = with_inference(windows, earned)
    told = [window for window in windows if window.is_told]
    alarm = calibration.alarm(arguments.window, DEPTH, beside=beside)
    alarm.add_all(windows)
    total = add_up(told, 0.99) if told else None
    filled = load.latencies.get(1.0, [])
    units = sum(window.credited for window in windows)
    computed = units * worth.smallest
    result = {
        "slots": calibration.slots,
        "unit_smallest_ms": worth.smallest * 1e3,
        "unit_median_ms": worth.median * 1e3,
        "usual": calibration.inference.usual,
        "share_of_data_sheet": calibration.share_of_sheet,
        "windows": len(windows),
        "accounted_windows": len(told),
        "cannot_tell": sum(window.judged is None for window in windows),
        "steal": [window.steal for window in windows],
        "accounted_fraction_smallest": total.fraction if total else None,
        "accounted_fraction_median": total.fraction_median if total else None,
        "per_window_median": [round(window.accounted(median=True), 4) for window in windows],
        "judged": [None if window.judged is None else round(window.judged, 4) for window in windows],
        "inference_share": [round(window.inference.shown / window.capacity, 3) for window in windows],
        "inference_in_steps_alone_and_full": [
            [round(part / one.capacity, 4) for part in steps_within(earned, one.start_unix, one.end_unix)]
            for one in windows
        ],
        "companion": [window.companion for window in windows],
        "decode_ms": [[rows, round(seconds * 1e3, 4)] for rows, seconds in calibration.inference.decode],
        "honest_windows": calibration.honest.fractions if calibration.honest else None,
        "inference_seconds": sum(window.inference.smallest for window in windows),
        "failed_windows": sum(window.outcome is Outcome.FAIL for window in windows),
        "alarm_at_window": alarm.fired_at,
        "alarm_expects": alarm.expected,
        "alarm_limit": alarm.limit,
        "raised_at_window": alarm.raised_at,
        "tenant": arguments.tenant,
        "tenant_from_window": len(windows) // 3 if arguments.tenant else None,
        "rate": load.rate,
        "latency_p50_before": median_of(alone[0]),
        "latency_p50_after": median_of(alone[1]),
        "latency_p50_with_filler": median_of(filled),
        "latency_ratio": ratio(filled, alone[0] + alone[1]),
        "latency_requests": [len(alone[0]), len(filled), len(alone[1])],
        "requests": len(load.served),
        "requests_failed": load.failed,
        "requests_turned_away": load.turned_away,
        "verifier_over_prover": accounting.costs.verifier_seconds / computed if computed else None,
        "wire_bytes_per_compute_second": (accounting.costs.bytes_sent + accounting.costs.bytes_received)
        / computed
        if computed
        else None,
        "findings": [finding for window in windows for finding in window.findings][:10],
    }
    print(json.dumps(result, indent=1))
    if arguments.out:
        with arguments.out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(result) + "\n")
        together(arguments.out)


def together(path: Path) -> None:
    """Windows and alarms of all honest runs in the file."""
    runs = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    honest = [run for run in runs if not run["tenant"]]
    windows = sum(run["windows"] - run["cannot_tell"] for run in honest)
    false = sum(run["alarm_at_window"] is not None or run["failed_windows"] > 0 for run in honest)
    print(
        json.dumps({"honest_runs": len(honest), "honest_windows": windows, "runs_with_a_false_alarm": false})
    )


def median_of(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def ratio(filled: list[float], alone: list[float]) -> dict[str, float] | None:
    """Of the medians, with the 99 % interval of 2,000 bootstrap samples."""
    if not filled or not alone:
        return None
    draws = [
        statistics.median(random.choices(filled, k=len(filled)))
        / statistics.median(random.choices(alone, k=len(alone)))
        for _ in range(2000)
    ]
    draws.sort()
    return {
        "ratio": statistics.median(filled) / statistics.median(alone),
        "low": draws[10],
        "high": draws[-11],
    }


if __name__ == "__main__":
    main()
