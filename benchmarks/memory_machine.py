"""Erasure, wipe cycles and residency of a "machine": a memory control group that holds server and agent.

    python benchmarks/memory_machine.py erase --machine-mib 16384
    python benchmarks/memory_machine.py cycle --machine-mib 16384 --mode stream --count 20
    python benchmarks/memory_machine.py hold --machine-mib 16384
    python benchmarks/memory_machine.py hold --machine-mib 3072 --full

`erase` fills a fresh agent (cold), then again (warm), in both modes. `cycle` wipes a serving machine again
and again under traffic and counts requests that were lost. `hold` challenges it while it serves: noise beside
the built-in model, or with `--full` a larger random model and a key-value cache that fill most of it; each
window with challenges is paired with one without. Rates of this machine are measured first, in the same run.

`--machine-cores` are the machine's, two of four or more by default, and the verifier and its clients have the
others; where none are left they share. Needs root for the control group. Prints JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from ullage.memory.calibration import Calibration
from ullage.memory.cycle import CycleSettings, Phases, run_cycle
from ullage.memory.erasure import MODES, WAYS, Erasure, Plan, greet
from ullage.memory.machine.region import usable_cores
from ullage.memory.measure import calibrate
from ullage.memory.protocol.wire import Connection, address_of
from ullage.memory.report import cycle_line
from ullage.memory.residency.cache_check import Recompute
from ullage.memory.residency.declared import DeclaredState
from ullage.memory.residency.verify import Challenger, HoldPlan
from ullage.memory.verifier import Declared, run_erasure, run_hold
from ullage.model.builtin import builtin_path
from ullage.model.identity import identify
from ullage.work import steal

MIB = 1 << 20
_ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def control_group(limit: int) -> Iterator[Path]:
    """A child of this process's memory control group, of either version; yields its list of processes."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    first = next((path for _, names, path in lines if "memory" in names.split(",")), None)
    parent = _ROOT / "memory" / first.lstrip("/") if first else _ROOT / lines[0][2].lstrip("/")
    folder = parent / f"ullage-machine-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(limit))
        yield folder / "cgroup.procs"
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)


@contextlib.contextmanager
def running(group: Path, cores: set[int], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`ullage ARGUMENTS` on these cores, as a member of the group from its first instruction on."""
    pinned = ",".join(map(str, cores))
    command = f'echo $$ > {group}; exec taskset -c {pinned} "$0" -m ullage "$@"'
    process = subprocess.Popen(
        ["/bin/sh", "-c", command, sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def in_use(group: Path) -> dict[str, int]:
    """MiB of the group, as its kernel counts them: processes' own, shared memory, pages of files."""
    rows = dict(line.split() for line in (group.parent / "memory.stat").read_text().splitlines())
    kinds = {"processes": ("rss", "anon"), "shared": ("shmem",), "files": ("cache", "file")}
    return {
        name: next((int(rows[key]) // MIB for key in keys if key in rows), 0) for name, keys in kinds.items()
    }


def line_with(stream: object, pattern: str) -> str:
    """The first group of the first line that matches."""
    for line in iter(stream.readline, ""):  # type: ignore[attr-defined]
        if found := re.search(pattern, line):
            return found[1]
    raise SystemExit("The process of the machine ended before it was ready.")


class Traffic:
    """Clients outside the machine, each asking again when it is answered."""

    def __init__(self, url: str, clients: int, tokens: int, prompt: int = 8) -> None:
        self._body = {"max_tokens": tokens, "temperature": 1.0}
        self._url, self._prompt = url, prompt
        self._stop = threading.Event()
        self.tokens = self.requests = self.lost = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=600) as client:
            for turn in range(1 << 30):
                if self._stop.is_set():
                    return
                drawn = random.Random(f"{number} {turn}")  # no two alike: a prefix that is shared counts once
                prompt = [drawn.randrange(5, 4000) for _ in range(self._prompt)]
                body = {**self._body, "prompt": prompt, "seed": turn}
                try:
                    answer = client.post(f"{self._url}/v1/completions", json=body)
                    produced = answer.json()["usage"]["completion_tokens"] if answer.is_success else None
                except httpx.HTTPError:
                    produced = None
                with self._lock:
                    self.requests += 1
                    self.lost += produced is None
                    self.tokens += produced or 0
                if produced is None:
                    time.sleep(0.1)


def cpu_seconds(process: int) -> float:
    """Processor time of a process so far: what other work on the machine changes least."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def erase(options: argparse.Namespace, rates: Calibration) -> dict[str, object]:
    size = options.machine_mib * MIB
    found: dict[str, object] = {}
    for mode in options.modes:
        with (
            control_group(size) as group,
            running(group, options.cores, "agent", "--listen", "127.0.0.1:0") as process,
        ):
            address = line_with(process.stdout, r"listening on (\S+)")
            for state in ("cold", "warm"):
                before = cpu_seconds(process.pid), cpu_seconds(os.getpid())
                erasure, (claim, *_) = run_erasure(address, Plan(mode, by=options.by), rates, size, {})
                after = cpu_seconds(process.pid), cpu_seconds(os.getpid())
                found[f"{mode} {state}"] = {
                    "erased_fraction": claim.value,
                    "verdict": erasure.verdict,
                    "by": erasure.by,
                    "region_share": erasure.region_bytes / size,
                    "missing": erasure.missing,
                    "map_seconds": erasure.map_seconds,
                    "fill_seconds": erasure.fill_seconds,
                    "fill_over_first_touch": erasure.fill_rate / rates.first_touch_rate,
                    "fill_over_warm_write": erasure.fill_rate / rates.warm_write_rate,
                    "fill_over_generator": erasure.fill_rate / rates.generator_rate,
                    "agent_cpu_seconds": after[0] - before[0],
                    "verifier_cpu_seconds": after[1] - before[1],
                    "layers": erasure.layers,
                    "round_seconds": [timing.seconds for timing in erasure.timings],
                    "deadline": erasure.deadline,
                }
    return found


@contextlib.contextmanager
def serving(
    group: Path, cores: set[int], folder: Path, batch: int, dtype: str = "bfloat16"
) -> Iterator[tuple[str, str]]:
    """(URL, agent) of a server in the group."""
    options = ("--listen", "127.0.0.1:0", "--agent", "127.0.0.1:0", "--dtype", dtype)
    sizes = ("--model", str(folder), "--max-batch", str(batch))
    with running(group, cores, "serve", *options, *sizes) as process:
        agent = line_with(process.stderr, r"memory agent at (\S+)")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # type: ignore[union-attr]
        yield line_with(process.stdout, r"listening on (\S+)"), agent


def cycle(options: argparse.Namespace, rates: Calibration) -> dict[str, object]:
    size = options.machine_mib * MIB
    rows: list[tuple[Phases, Erasure]] = []
    stolen: list[float | None] = []
    with (
        control_group(size) as group,
        serving(group, options.cores, builtin_path(), 16) as (url, agent),
        Traffic(url, 4, 64) as traffic,
    ):
        settings = CycleSettings(builtin_path(), options.serve_mib * MIB, url)
        for _ in range(options.count):
            before = steal.read()
            done = run_cycle(agent, Plan(options.mode), rates, settings)
            after = steal.read()
            stolen.append(after.share_since(before) if before and after else None)
            rows.append((done.phases, done.erasure))
            print(cycle_line(done), file=sys.stderr)
            time.sleep(options.between)
    totals = [phases.total for phases, _ in rows]
    return {
        "mode": options.mode,
        "cycles": len(rows),
        "requests": traffic.requests,
        "requests_lost": traffic.lost,
        "erased_fraction_least": min(erasure.proven_bytes for _, erasure in rows) / size,
        "verdicts": sorted({erasure.verdict for _, erasure in rows}),
        "seconds_of_each": totals,
        "steal_of_each": stolen,
        "availability_at_5_minutes": 1 - statistics.mean(totals) / 300,
        "availability_of_the_worst_but_the_first": 1 - max(totals[1:], default=totals[0]) / 300,
        "erasure_of_each": [
            {
                "map_seconds": erasure.map_seconds,
                "fill_seconds": erasure.fill_seconds,
                "round_seconds": [timing.seconds for timing in erasure.timings],
                "missing": erasure.missing,
            }
            for _, erasure in rows
        ],
        "phases_of_worst": vars(max(rows[1:] or rows, key=lambda row: row[0].total)[0]),
    }


def random_model(folder: Path, size: int) -> int:
    """The built-in architecture, its width scaled until float32 weights have about `size` bytes.

    Returns the bytes of key-value memory that one sequence takes.
    """
    import shutil

    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(builtin_path())
    for path in builtin_path().iterdir():
        if path.suffix in {".json", ".jinja"}:
            shutil.copy(path, folder)
    width = 256
    while 4 * config.num_hidden_layers * 11 * (width + 128) ** 2 < size:
        width += 128
    config.hidden_size, config.intermediate_size = width, int(2.75 * width)
    config.dtype = "float32"
    config.num_attention_heads = width // 64
    config.num_key_value_heads = width // 64
    config.head_dim = 64
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return int(8 * config.num_hidden_layers * width * config.max_position_embeddings)


def hold(options: argparse.Namespace, rates: Calibration) -> dict[str, object]:
    size = options.machine_mib * MIB
    with tempfile.TemporaryDirectory(prefix="ullage-") as name:
        folder, batch, dtype = builtin_path(), 16, "bfloat16"
        if options.full:
            folder, dtype = Path(name), "float32"
            slot_bytes = random_model(folder, int(size * options.weights_share))
            batch = max(1, int(size * options.cache_share) // slot_bytes)
        reserve = options.reserve_mib * MIB
        with (
            control_group(size) as group,
            serving(group, options.cores, folder, batch, dtype) as (url, agent),
        ):
            settings = CycleSettings(folder, size - reserve, url)
            run_cycle(agent, Plan("stream", 64 * MIB), rates, settings)
            declared = Declared(folder, size, recompute_with(folder) if options.full else None)
            plan = HoldPlan(
                steps=options.steps,
                rounds=options.rounds,
                quorum=1 if options.full else 3,
                pause=options.pause,
                budget=size - reserve,
            )
            # A step takes one prompt in, so answers are longer than there are slots: all of them are full.
            clients, tokens, prompt = (batch, 220, 800) if options.full else (4, 64, 8)
            with Traffic(url, clients, tokens, prompt) as traffic:
                time.sleep(options.warm_up)
                print(f"before the first chain: {in_use(group)} MiB", file=sys.stderr)
                held = run_hold(agent, plan, rates, declared, inputs={}, dump=False)
                print(f"after the last: {in_use(group)} MiB", file=sys.stderr)
                losses = [] if options.full else paired(traffic, options, (agent, plan, rates, folder))
    found = held.holding
    return {
        "verdict": found.verdict,
        "claims": {claim.name: claim.value for claim in held.claims},
        "challenged": {kind.name.lower(): amount / size for kind, amount in found.challenged.items()},
        "counted": {kind.name.lower(): amount / size for kind, amount in found.counted.items()},
        "missing": found.missing,
        "missing_bytes": found.missing_bytes,
        "deadline": found.deadline,
        "chains": [
            {"seconds": one.seconds, "late": one.late, "correct": one.correct, "warning": one.warning,
             "frozen": one.frozen, "cache": vars(one.cache) if one.cache else None}
            for one in found.chains
        ],
        "requests_lost": traffic.lost,
        "loss_of_tokens_per_pair": losses,
        "loss_of_tokens_median": statistics.median(losses) if losses else None,
    }  # fmt: skip


def paired(
    traffic: Traffic, options: argparse.Namespace, session: tuple[str, HoldPlan, Calibration, Path]
) -> list[float]:
    """Share of tokens a second that chains cost, window by window beside one without.

    The ballast stands before the first window, as it does on a machine that serves for hours.
    """
    agent, plan, rates, folder = session
    losses = []
    with Connection.open(*address_of(agent)) as connection:
        state = DeclaredState(folder, identify(folder), None)
        challenger = Challenger(connection, greet(connection).machine_bytes, plan, rates, state)
        challenger.fit_ballast()
        for _ in range(options.pairs):
            speeds = []
            for challenged in (False, True):
                began, before = time.monotonic(), traffic.tokens
                while (left := began + options.window - time.monotonic()) > 0:
                    time.sleep(min(left, random.expovariate(1 / plan.pause) if challenged else left))
                    if challenged and time.monotonic() < began + options.window:
                        challenger.fit_ballast()
                        challenger.challenge()
                speeds.append((traffic.tokens - before) / (time.monotonic() - began))
            losses.append(1 - speeds[1] / speeds[0])
    return losses


def recompute_with(folder: Path) -> Recompute:
    from ullage.model.key_values import key_values
    from ullage.model.loading import load_causal_lm

    model = load_causal_lm(folder, "float32")

    def recompute(tokens: Sequence[int]) -> list[NDArray[np.float32]]:
        return key_values(model, tokens)

    return recompute


def split_cores(machine: int) -> tuple[set[int], set[int]]:
    """Cores of the machine, and of everybody else: those that are left, or all when none are."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[:machine]), set(cores[machine:]) or set(cores)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("erase", "cycle", "hold"))
    parser.add_argument("--machine-mib", type=int, default=1024)
    parser.add_argument(
        "--machine-cores", type=int, default=2 if usable_cores() >= 4 else usable_cores(),
        help="the verifier and its clients have those that are left, or share all",
    )  # fmt: skip
    parser.add_argument("--store", type=Path, help="folder on the fastest disk; without it there is none")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--by", choices=WAYS, help="what proves more without")
    parser.add_argument("--mode", choices=MODES, default="stream")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--between", type=float, default=2.0, help="seconds from one cycle to the next")
    parser.add_argument("--serve-mib", type=int, default=128, help="what a cycle gives back to the server")
    parser.add_argument("--full", action="store_true", help="mostly weights and key-value memory")
    parser.add_argument("--weights-share", type=float, default=0.1, help="a reload holds them three times")
    parser.add_argument("--cache-share", type=float, default=0.72)
    parser.add_argument(
        "--reserve-mib", type=int, default=640, help="what is not declared: process, activations"
    )
    parser.add_argument("--steps", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pause", type=float, default=5.0, help="mean seconds between chains")
    parser.add_argument("--outside-us", type=float, default=50.0, help="shortest round trip to a helper")
    parser.add_argument("--warm-up", type=float, default=5.0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--window", type=float, default=30.0)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends as well
    machine, verifier = split_cores(options.machine_cores)
    os.sched_setaffinity(0, machine)
    rates = calibrate(4096 * MIB, options.store, 3, cores=usable_cores(), outside=options.outside_us * 1e-6)
    os.sched_setaffinity(0, verifier)
    options.cores = machine
    print(f"calibrated: {rates.model_dump(mode='json')}", file=sys.stderr)
    work = {"erase": erase, "cycle": cycle, "hold": hold}[options.what]
    result = {
        "what": options.what,
        "machine_mib": options.machine_mib,
        **work(options, rates),
        "calibration": rates.model_dump(mode="json"),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
