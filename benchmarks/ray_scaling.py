"""Two Ray workers beside one, and beside a process without Ray, on the same records: JSON on standard output.

    python benchmarks/ray_scaling.py [--model PATH] [--answers 128] [--repeat 16] [--rounds 3]

Records of an honest server are scored as `ullage audit` does, one thread a worker, in turn with each number
of workers (1 2 1 2 …) on one Ray cluster of this machine. `ratio` is of rates after the start, when all are
at work, since weights are loaded once an audit, however long that is; `ratio_of_walls` has the start in it.
All scores must be equal bit for bit, or the program fails. The answers stand in the work `--repeat` times, so
that decoding them does not take longer than what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from audit_throughput import MIX, honest_records
from ullage.audit.bundle.evidence import TokenScores
from ullage.audit.cluster.ray_cluster import Cluster, RayOptions, joined
from ullage.audit.cluster.ray_reference import RayReference
from ullage.audit.recompute import recompute
from ullage.log.record import Record
from ullage.model.builtin import builtin_path
from ullage.model.reference import Reference
from ullage.sampling.logits import use_threads
from ullage.sampling.profiles import Profile, get_profile

WORKERS: Final = (1, 2)
BAR: Final = 1.6


@dataclass(frozen=True)
class Run:
    """One audit's pass: seconds of all of it, tokens a second after the start, and what it scored."""

    seconds: float
    rate: float
    scores: list[bytes]


def as_bytes(scores: Sequence[TokenScores]) -> list[bytes]:
    """Every bit of what was scored."""
    return [
        one.token.tobytes() + one.reference.tobytes() + one.margin.tobytes() + one.rank.tobytes()
        for one in scores
    ]


def on_cluster(cluster: Cluster, model: Path, profile: Profile, records: Sequence[Record]) -> Run:
    """Score all records with so many workers as the cluster is asked for."""
    steps: list[tuple[float, int]] = []
    reference = RayReference(cluster, model)
    began = time.perf_counter()
    scores = reference.recompute(profile, records, lambda done: steps.append((time.perf_counter(), done)))
    ended = time.perf_counter()
    if len(steps) < 3 * cluster.workers:
        raise SystemExit("Too little work for a rate: raise --repeat.")
    start, before = steps[2 * cluster.workers - 1]  # all workers are at work by then
    return Run(ended - began, (steps[-1][1] - before) / (steps[-1][0] - start), as_bytes(scores))


def in_process(reference: Reference, profile: Profile, records: Sequence[Record]) -> Run:
    """The same without Ray, on one thread."""
    began = time.perf_counter()
    scores = recompute(reference, profile, records)
    seconds = time.perf_counter() - began
    tokens = sum(len(record.output_ids) for record in records)
    return Run(seconds, tokens / seconds, as_bytes(scores))


def main() -> None:
    """Run in turn and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model; the built-in one without")
    parser.add_argument("--answers", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=128, help="output tokens an answer")
    parser.add_argument("--repeat", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", default="murmur3-gumbel/f64")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    use_threads(1)
    model, profile = options.model or builtin_path(), get_profile(options.profile)
    reference = Reference.load(model)
    records = honest_records(reference, profile, MIX, options.answers, options.tokens) * options.repeat
    runs: dict[int, list[Run]] = {0: [], **{workers: [] for workers in WORKERS}}
    with joined(RayOptions(workers=max(WORKERS))) as cluster:
        for _ in range(options.rounds):
            runs[0].append(in_process(reference, profile, records))
            for workers in WORKERS:
                runs[workers].append(on_cluster(replace(cluster, workers=workers), model, profile, records))
    if len({tuple(run.scores) for found in runs.values() for run in found}) != 1:
        raise SystemExit("The scores are not equal bit for bit.")
    rates = {workers: [run.rate for run in found] for workers, found in runs.items()}
    ratios = sorted(two / one for one, two in zip(rates[1], rates[2], strict=True))
    print(
        json.dumps(
            {
                "benchmark": "ray_scaling",
                "model": reference.identity.digest,
                "tokens": sum(len(record.output_ids) for record in records),
                "rounds": options.rounds,
                "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                "load": os.getloadavg()[0],
                "tokens_per_second_in_process": round(statistics.median(rates[0])),
                "tokens_per_second_one_worker": round(statistics.median(rates[1])),
                "tokens_per_second_two_workers": round(statistics.median(rates[2])),
                "bar": BAR,
                "ratio": round(statistics.median(ratios), 3),
                "ratio_lowest": round(ratios[0], 3),
                "ratio_of_walls": round(
                    statistics.median(
                        one.seconds / two.seconds for one, two in zip(runs[1], runs[2], strict=True)
                    ),
                    3,
                ),
                "seconds_of_one_worker_and_of_two": [
                    round(statistics.median(run.seconds for run in runs[workers]), 1) for workers in WORKERS
                ],
                "scores_equal_bit_for_bit": True,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
