"""How fast claimed tokens are scored, without any model: JSON on standard output.

    python benchmarks/scoring.py [--seconds 2]

Logits are synthetic (normal with a few likely tokens, like a language model's rows); the claimed tokens are
the honest ones except 1 in 1,000, which are replaced by random ones. Rates are wall time, best of the
repetitions that fit in the time given to a case; processor time (all threads together) is less sensitive
to what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile


@dataclass(frozen=True)
class Case:
    """One line of the result."""

    name: str
    profile: str
    vocabulary_size: int
    rows: int
    parameters: SamplingParameters
    operation: str = "score"


CASES = (
    Case("small-vocabulary", "murmur3-gumbel/f64", 4096, 2048, SamplingParameters()),
    Case("small-vocabulary-top-p", "murmur3-gumbel/f64", 4096, 1024, SamplingParameters(0.8, 0.95)),
    Case("small-vocabulary-choose-32", "murmur3-gumbel/f64", 4096, 32, SamplingParameters(), "choose"),
    Case("large-vocabulary-top-k", "murmur3-gumbel/f64", 151_936, 256, SamplingParameters(0.8, 1.0, 50)),
    Case(
        "large-vocabulary-top-k-top-p", "murmur3-gumbel/f64", 151_936, 256, SamplingParameters(0.8, 0.95, 50)
    ),
    Case("large-vocabulary", "murmur3-gumbel/f64", 151_936, 256, SamplingParameters()),
    Case("small-vocabulary-splitmix64", "splitmix64-gumbel", 4096, 512, SamplingParameters()),
    Case("small-vocabulary-inverse-transform", "inverse-transform", 4096, 512, SamplingParameters()),
)


def synthetic_logits(rows: int, vocabulary_size: int) -> NDArray[np.float32]:
    """Rows (T, V) with entropies between almost none and several bits."""
    generator = np.random.default_rng(20)
    logits = generator.standard_normal((rows, vocabulary_size), dtype=np.float32) * np.float32(2.5)
    likely = generator.integers(0, vocabulary_size, (rows, 8))
    lift = generator.uniform(6, 16, (rows, 8)).astype(np.float32)
    np.put_along_axis(logits, likely, lift, axis=1)
    return logits


def best_seconds(work: Callable[[], object], seconds: float) -> tuple[float, float]:
    """The shortest wall time and processor time of one call among those that fit into this time."""
    work()
    wall, processor, end = float("inf"), float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start, used = time.perf_counter(), time.process_time()
        work()
        wall = min(wall, time.perf_counter() - start)
        processor = min(processor, time.process_time() - used)
    return wall, processor


def measure(case: Case, seconds: float) -> dict[str, object]:
    """One case's figures."""
    profile = get_profile(case.profile)
    logits = synthetic_logits(case.rows, case.vocabulary_size)
    address = NoiseAddress.of_response(1234, 17, case.rows)
    claimed = profile.choose(logits, case.parameters, address)
    generator = np.random.default_rng(21)
    changed = generator.choice(case.rows, -(-case.rows // 1000), replace=False)
    claimed[changed] = generator.integers(0, case.vocabulary_size, len(changed))

    def work() -> object:
        if case.operation == "choose":
            return profile.choose(logits, case.parameters, address)
        return profile.score(logits, claimed, case.parameters, address)

    taken, processor = best_seconds(work, seconds)
    return {
        "name": case.name,
        "operation": case.operation,
        "profile": case.profile,
        "vocabulary_size": case.vocabulary_size,
        "rows": case.rows,
        "parameters": case.parameters.to_record(),
        "microseconds_per_row": round(taken / case.rows * 1e6, 2),
        "processor_microseconds_per_row": round(processor / case.rows * 1e6, 2),
        "rows_per_second": round(case.rows / taken),
    }


def main() -> None:
    """Run all cases and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each case")
    seconds = parser.parse_args().seconds
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cases = [measure(case, seconds) for case in CASES]
    print(
        json.dumps(
            {"benchmark": "scoring", "cores": usable, "numpy": np.__version__, "cases": cases}, indent=1
        )
    )


if __name__ == "__main__":
    main()
