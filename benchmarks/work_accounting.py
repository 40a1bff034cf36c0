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
Takes a fifth longer than `--seconds`, and 1.5 minutes.
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
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ullage.work.calibration import Calibration, InferenceTime, measure
from ullage.work.datasheet import cpu_nameplate, read_cpuinfo
from ullage.work.inference import Served, credit
from ullage.work.run import Accounting, Plan, with_inference
from ullage.work.shape import Shape
from ullage.work.stream import parse_address
from ullage.work.twin import check_quiet, measure_honest
from ullage.work.verifier import DEPTH, Terms
from ullage.work.window import Outcome, Window, add_up

TOKENS = 48
BATCHES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
"""Inference is timed at these. Between two of them a step is taken to be as short as either allows."""
PHASES = (0.0, 0.3, 1.0, 4.0, 1.0, 0.3)
"""Load, as multiples of `--rate`, in turns."""


@dataclass
class Load:
    """Requests at a changing rate, and what came of them."""

    address: str
    rate: float
    served: list[Served] = field(default_factory=list)
    latencies: dict[float, list[float]] = field(default_factory=dict)
    turned_away: int = 0
    """Requests that were not sent, because 32 were open."""
    failed: int = 0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._client = httpx.Client(base_url=f"http://{self.address}", timeout=120)
        self._model = self._client.get("/v1/models").raise_for_status().json()["data"][0]["id"]
        self._room = threading.Semaphore(32)

    def ask(self, phase: float, prompt_words: int = 12, tokens: int = TOKENS) -> float:
        words = " ".join(f"{random.randrange(10**6)}" for _ in range(prompt_words))
        start_unix, start = time.time_ns(), time.perf_counter()
        reply = self._client.post(
            "/v1/completions",
            json={
                "model": self._model,
                "prompt": words,
                "max_tokens": tokens,
                "seed": random.getrandbits(31),
            },
        )
        seconds = time.perf_counter() - start
        usage = reply.raise_for_status().json()["usage"]
        with self._lock:
            number = len(self.served)
            # Prompts are random, so no prefix is shared; ids of its own stand for a record's tokens.
            prompt = tuple(number * 10_000 + n for n in range(usage["prompt_tokens"]))
            output = tuple(number * 10_000 + 5000 + n for n in range(usage["completion_tokens"]))
            self.served.append(Served(number, start_unix, time.time_ns(), prompt, output, True))
            self.latencies.setdefault(phase, []).append(seconds)
        return seconds

    def run(self, phases: tuple[float, ...], phase_seconds: float) -> None:
        threads = []
        for phase in phases:
            end = time.monotonic() + phase_seconds
            while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
                gap = random.expovariate(phase * self.rate) if phase else left
                self._stop.wait(min(gap, left))
                if gap >= left or self._stop.is_set():
                    continue
                if not self._room.acquire(blocking=False):
                    self.turned_away += 1
                    continue
                thread = threading.Thread(target=self._one, args=(phase,), daemon=True)
                thread.start()
                threads.append(thread)
        for thread in threads:
            thread.join(120)

    def _one(self, phase: float) -> None:
        try:
            self.ask(phase)
        except httpx.HTTPError:
            with self._lock:
                self.failed += 1
        finally:
            self._room.release()

    def stop(self) -> None:
        self._stop.set()

    def latency_alone(self, seconds: float) -> list[float]:
        """Seconds of each request at load 1 without filler. Nothing of it is accounted."""
        self.clear()
        self.run((1.0,), seconds)
        found = self.latencies.get(1.0, [])
        self.clear()
        return found

    def clear(self) -> None:
        self.served, self.latencies = [], {}


def parse_cores(text: str) -> frozenset[int]:
    """`0-2,5` as a set; everything that this process may use without one."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found) or frozenset(os.sched_getaffinity(0))


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Processes that are started here stay on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def process(cores: frozenset[int], *arguments: str) -> Iterator[tuple[str, int]]:
    """`ullage …`, which prints its address; (address, pid)."""
    command = [sys.executable, "-m", "ullage", *arguments]
    with on_cores(cores):
        running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with running:
        try:
            assert running.stdout is not None
            line = running.stdout.readline()
            yield line.strip().rpartition(" ")[2].removeprefix("http://"), running.pid
        finally:
            running.terminate()


def processor_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def inference_times(load: Load, pid: int, seconds: float) -> tuple[InferenceTime, float]:
    """Processor seconds a token of the server, at several batches, and for prompts: the twin's own figures.

    Also the requests a second of the largest batch. What an answer took holds its prompt, which is taken out
    again, since it earns by itself; its first token comes of the prompt.
    """
    load.ask(-1.0)  # nothing is timed cold
    before, count = processor_seconds(pid), _prompts(load)
    for _ in range(3):
        load.ask(-1.0, prompt_words=100, tokens=1)
    prefill = max(1e-9, (processor_seconds(pid) - before) / (_prompts(load) - count))
    decode = []
    saturated = 0.0
    for batch in BATCHES:
        workers = [
            threading.Thread(target=_ask_until, args=(load, time.monotonic() + seconds)) for _ in range(batch)
        ]
        load.clear()
        before, begin = processor_seconds(pid), time.monotonic()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        saturated = _tokens(load) / TOKENS / (time.monotonic() - begin)
        spent = processor_seconds(pid) - before - prefill * _prompts(load)
        decode.append((batch, max(1e-9, spent / max(1, _tokens(load) - len(load.served)))))
    decode = [(batch, min(s for _, s in decode[: n + 1])) for n, (batch, _) in enumerate(decode)]
    load.clear()
    times = InferenceTime(prefill=min(prefill, decode[-1][1]), decode=tuple(decode), operations=0.0)
    return times, saturated


def _ask_until(load: Load, end: float) -> None:
    while time.monotonic() < end:
        load.ask(-1.0)


def _prompts(load: Load) -> int:
    return sum(len(one.prompt) for one in load.served)


def _tokens(load: Load) -> int:
    return sum(len(one.output) for one in load.served)


def tenant(share: float, slots: int, seconds: float) -> list[subprocess.Popen[bytes]]:
    """Processes that keep this share of the slots busy, at normal priority."""
    code = (
        "import sys,time\nshare=float(sys.argv[1]);end=time.time()+float(sys.argv[2])\n"
        "while time.time()<end:\n t=time.time()\n while time.time()-t<0.05*share: pass\n"
        " time.sleep(0.05*(1-share))\n"
    )
    command = [sys.executable, "-c", code, str(share), str(seconds)]
    return [subprocess.Popen(command) for _ in range(slots)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--window", type=float, default=60)
    parser.add_argument("--machine-cores", default="", help="cores of the machine, such as 0-2; all without")
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
    parser.add_argument("--tenant", type=float, default=0.0)
    parser.add_argument("--out", type=Path, help="JSON lines: add this run, and print all runs together")
    arguments = parser.parse_args()
    cores = parse_cores(arguments.machine_cores)
    slots = arguments.slots or len(cores)
    if arguments.machine_cores:  # the verifier and the load get what is left
        os.sched_setaffinity(0, os.sched_getaffinity(0) - cores or cores)
    with on_cores(cores):
        calibration = measure(
            "this machine",
            Shape.parse(arguments.shape),
            slots,
            arguments.calibrate,
            cpu_nameplate(slots, read_cpuinfo()),
        )
        if arguments.honest_windows:
            honest = check_quiet(measure_honest(calibration, arguments.honest_windows, arguments.window))
            calibration = calibration.model_copy(update={"honest": honest})
    count = max(1, round(arguments.seconds / arguments.window))
    with process(cores, "serve", "--listen", "127.0.0.1:0") as (server, pid):
        load = Load(server, arguments.rate or 1.0)
        short = max(6.0, min(180.0, arguments.seconds / 10))
        times, saturated = inference_times(load, pid, max(2.0, min(10.0, short / 4)))
        load.rate = arguments.rate or saturated / 4
        alone = load.latency_alone(short)
        calibration = calibration.model_copy(update={"inference": times})
        worth = calibration.worth
        with process(cores, "work", "agent", "--listen", "127.0.0.1:0", "--slots", str(slots)) as (agent, _):
            host, port = parse_address(agent)
            terms = Terms(host, port, slots, calibration.unit_shape)
            accounting = Accounting(Plan(terms, worth, arguments.window, count, arguments.openings))
            phase_seconds = count * arguments.window / len(PHASES)
            loader = threading.Thread(target=load.run, args=(PHASES, phase_seconds), daemon=True)
            windows: list[Window] = []
            loader.start()
            tenants: list[subprocess.Popen[bytes]] = []
            for window in accounting.windows():
                windows.append(window)
                if arguments.tenant and not tenants and len(windows) >= count // 3:
                    with on_cores(cores):
                        tenants = tenant(arguments.tenant, slots, arguments.seconds)
            loader.join(phase_seconds)
            for one in tenants:
                one.terminate()
        after = Load(server, load.rate).latency_alone(short)
    report(arguments, calibration, windows, load, (alone, after), accounting)


def report(  # noqa: PLR0917 - all that is known at the end
    arguments: argparse.Namespace,
    calibration: Calibration,
    windows: list[Window],
    load: Load,
    alone: tuple[list[float], list[float]],
    accounting: Accounting,
) -> None:
    assert calibration.inference is not None
    worth = calibration.worth
    windows = with_inference(windows, credit(load.served, calibration.inference.costs(), calibration.slots))
    told = [window for window in windows if window.is_told]
    alarm = calibration.alarm(arguments.window, DEPTH)
    alarm.add_all(windows)
    total = add_up(told, 0.99) if told else None
    filled = load.latencies.get(1.0, [])
    units = sum(window.credited for window in windows)
    computed = units * worth.smallest
    result = {
        "slots": calibration.slots,
        "unit_smallest_ms": worth.smallest * 1e3,
        "unit_median_ms": worth.median * 1e3,
        "share_of_data_sheet": calibration.share_of_sheet,
        "windows": len(windows),
        "cannot_tell": len(windows) - len(told),
        "steal": [window.steal for window in windows],
        "accounted_fraction_smallest": total.fraction if total else None,
        "accounted_fraction_median": total.fraction_median if total else None,
        "per_window_median": [round(window.accounted(median=True), 4) for window in windows],
        "inference_seconds": sum(window.inference.smallest for window in windows),
        "failed_windows": sum(window.outcome is Outcome.FAIL for window in windows),
        "alarm_at_window": alarm.fired_at,
        "alarm_expects": alarm.expected,
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
