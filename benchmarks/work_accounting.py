"""A live account of this machine under a mixed load: `python benchmarks/work_accounting.py --seconds 1800`.

Calibrates this machine (it is its own twin), times inference on it, serves the built-in model under a load
that goes from idle to saturated and back, and lets the agent fill the rest. Prints the accounted fraction at
the smallest and at the median times, false alarms, the p50 latency with and without filler at the same rate,
and the cost of verification. `--tenant 0.2` adds a second tenant of that share after the first third. The
client's own transcript stands for the audited log.

`--machine-cores 0-2` gives agent and server these cores and leaves the others to the verifier and the load,
which are not part of the machine. Takes about 2.5 minutes more than `--seconds`.
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

import httpx

from ullage.work.alarm import Alarm, expected_fraction
from ullage.work.calibration import Calibration, InferenceTime, measure
from ullage.work.datasheet import cpu_nameplate, read_cpuinfo
from ullage.work.inference import Served, credit
from ullage.work.run import Accounting, Plan, with_inference
from ullage.work.shape import Shape
from ullage.work.stream import parse_address
from ullage.work.verifier import Terms
from ullage.work.window import Outcome, Window, add_up

TOKENS = 48
PHASES = (0.0, 0.3, 1.0, 4.0, 1.0, 0.3)
"""Load, as multiples of `--rate`, in turns."""


@dataclass
class Load:
    """Requests at a changing rate, and what came of them."""

    address: str
    rate: float
    served: list[Served] = field(default_factory=list)
    latencies: dict[float, list[float]] = field(default_factory=dict)

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
                if gap < left and self._room.acquire(blocking=False):
                    thread = threading.Thread(target=self._one, args=(phase,), daemon=True)
                    thread.start()
                    threads.append(thread)
        for thread in threads:
            thread.join(120)

    def _one(self, phase: float) -> None:
        try:
            self.ask(phase)
        finally:
            self._room.release()

    def stop(self) -> None:
        self._stop.set()


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


def inference_times(load: Load, pid: int, seconds: float) -> InferenceTime:
    """Processor seconds a token of the server, at several batches, and for prompts.

    The twin's own figures.
    """
    decode = []
    for batch in (1, 4, 16):
        workers = [
            threading.Thread(target=_ask_until, args=(load, time.monotonic() + seconds)) for _ in range(batch)
        ]
        before, count = processor_seconds(pid), _tokens(load)
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        decode.append((batch, (processor_seconds(pid) - before) / max(1, _tokens(load) - count)))
    decode = [(batch, min(s for _, s in decode[: n + 1])) for n, (batch, _) in enumerate(decode)]
    before, count = processor_seconds(pid), sum(len(one.prompt) for one in load.served)
    for _ in range(3):
        load.ask(-1.0, prompt_words=100, tokens=1)
    prompt_tokens = sum(len(one.prompt) for one in load.served) - count
    prefill = max(1e-9, (processor_seconds(pid) - before) / prompt_tokens)
    load.served.clear()
    load.latencies.clear()
    return InferenceTime(prefill=min(prefill, decode[-1][1]), decode=tuple(decode), operations=0.0)


def _ask_until(load: Load, end: float) -> None:
    while time.monotonic() < end:
        load.ask(-1.0)


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
    parser.add_argument("--rate", type=float, default=1.0, help="requests a second at load 1")
    parser.add_argument("--openings", type=int, default=360)
    parser.add_argument("--calibrate", type=float, default=30, help="seconds of whole units")
    parser.add_argument("--tenant", type=float, default=0.0)
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
    count = max(1, round(arguments.seconds / arguments.window))
    with process(cores, "serve", "--listen", "127.0.0.1:0") as (server, pid):
        load = Load(server, arguments.rate)
        short = max(4.0, min(40.0, arguments.seconds / 20))
        times = inference_times(load, pid, short / 4)
        load.run((1.0,), short)
        alone = statistics.median(load.latencies[1.0])
        load.served.clear()
        load.latencies.clear()
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
            load.stop()
            loader.join(120)
            for one in tenants:
                one.terminate()
    report(arguments, calibration, windows, load, alone, accounting)


def report(  # noqa: PLR0917 - all that is known at the end
    arguments: argparse.Namespace,
    calibration: Calibration,
    windows: list[Window],
    load: Load,
    alone: float,
    accounting: Accounting,
) -> None:
    assert calibration.inference is not None
    worth = calibration.worth
    windows = with_inference(windows, credit(load.served, calibration.inference.costs()))
    told = [window for window in windows if window.outcome is not Outcome.CANNOT_TELL]
    alarm = Alarm(expected_fraction(2, worth.median, arguments.window))
    alarm.add_all(windows)
    total = add_up(told, 0.99) if told else None
    busy = load.latencies.get(1.0)
    filled = statistics.median(busy) if busy else None
    units = sum(window.credited for window in windows)
    computed = units * worth.smallest
    print(
        json.dumps(
            {
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
                "tenant": arguments.tenant,
                "tenant_from_window": len(windows) // 3 if arguments.tenant else None,
                "latency_p50_alone": alone,
                "latency_p50_with_filler": filled,
                "latency_ratio": filled / alone if filled else None,
                "requests": len(load.served),
                "verifier_over_prover": accounting.costs.verifier_seconds / computed if computed else None,
                "wire_bytes_per_compute_second": (
                    accounting.costs.bytes_sent + accounting.costs.bytes_received
                )
                / computed
                if computed
                else None,
                "findings": [finding for window in windows for finding in window.findings][:10],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
