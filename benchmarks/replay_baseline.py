"""Scoring of an audit beside a plain replay, token by token, on the same logits: JSON on standard output.

    python benchmarks/replay_baseline.py [--rows 96] [--rounds 3] [--vocabulary 151936]

The replay is the method of "Verifying LLM inference to prevent model weight exfiltration" (arXiv 2511.02620)
in its obvious form, written anew here: for each token sort the logits (rank of the claimed token), draw the
noise of the whole row, sort again for top-k and top-p, add the noise, take the largest, and score the claimed
token by the probability that the winner beats it under Gaussian noise of the logits. No model is involved.

Claimed tokens are honest but for every tenth, which is what wins without the honest one. Both sides must name
the same reference at every row, and so the same mismatches and the same verdict, or the program fails. Two
kinds of noise: the hash of vLLM's GPU profile and of our server, and torch's generator, whose rows both sides
have to draw in full. The sides run in turn on one core; compare the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from scoring import synthetic_logits
from ullage.audit.verdict import decide
from ullage.sampling.address import NoiseAddress
from ullage.sampling.murmur3 import Murmur3Gumbel64
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile
from ullage.sampling.torch_exponential import draw_exponentials

SEED: Final = 1234
PROMPT_LENGTH: Final = 17
SIGMA: Final = 1.0  # of the published method's noise model, in logits
LIMIT: Final = 2e-4  # of the audit's rule for float32
BAR: Final = 30.0
SETTINGS: Final = {
    "published (top-k 50, top-p 0.95)": SamplingParameters(1.0, 0.95, 50),
    "top-p 0.95": SamplingParameters(1.0, 0.95),
    "no filter": SamplingParameters(1.0),
}
PROFILES: Final = ("murmur3-gumbel/f64", "torch-exponential")


@dataclass(frozen=True)
class Replayed:
    """What the plain loop says of one token."""

    reference: int
    rank: int
    score: float


def noise_rows(profile: str, rows: int, vocabulary_size: int) -> Iterator[torch.Tensor]:
    """The profile's noise of all tokens (V,), Gumbel, one row a step."""
    if profile == "torch-exponential":
        for draws in draw_exponentials(SEED, vocabulary_size):
            yield -torch.log(torch.from_numpy(draws).clamp(min=1e-12))
    address = NoiseAddress.of_response(SEED, PROMPT_LENGTH, rows)
    everything = np.arange(vocabulary_size)
    for row in range(rows):
        one = slice(row, row + 1)
        here = NoiseAddress(address.seeds[one], address.positions[one], address.steps[one])
        noise = Murmur3Gumbel64().noise(here, vocabulary_size)
        yield torch.from_numpy(noise.at(np.zeros(vocabulary_size, np.int64), everything))


def filtered_out(logits: torch.Tensor, parameters: SamplingParameters) -> torch.Tensor:
    """Which tokens (V,) top-k and then top-p remove: one ascending sort, as engines do it."""
    ordered, order = logits.sort()
    if parameters.top_k:
        ordered[: -parameters.top_k] = -torch.inf
    if parameters.top_p < 1:
        gone = ordered.softmax(0).cumsum(0) <= 1 - parameters.top_p
        gone[-1] = False
        ordered[gone] = -torch.inf
    return torch.isinf(torch.empty_like(logits).scatter_(0, order, ordered))


def replay_token(
    logits: torch.Tensor, noise: torch.Tensor, claimed: int, parameters: SamplingParameters
) -> Replayed:
    """One token of the published loop."""
    rank = int((torch.argsort(logits, descending=True) == claimed).nonzero()[0])
    noised = logits + parameters.temperature * noise
    noised[filtered_out(logits / parameters.temperature, parameters)] = -torch.inf
    reference = int(noised.argmax())
    beaten_by = (noised[reference] - noised[claimed]) / (SIGMA * 2**0.5)
    return Replayed(reference, rank, float(torch.special.log_ndtr(-beaten_by.double())))


def replay(
    profile: str, logits: NDArray[np.float32], claimed: NDArray[np.int64], parameters: SamplingParameters
) -> list[Replayed]:
    """The loop over all rows (T, V)."""
    rows = noise_rows(profile, *logits.shape)
    return [
        replay_token(row, noise, int(token), parameters)
        for row, noise, token in zip(torch.from_numpy(logits), rows, claimed, strict=False)
    ]


def claims_of(
    profile: str, logits: NDArray[np.float32], parameters: SamplingParameters, address: NoiseAddress
) -> NDArray[np.int64]:
    """Honest tokens (T,), every tenth replaced by what wins where the honest one cannot be chosen."""
    chosen = get_profile(profile).choose(logits, parameters, address)
    without = logits.copy()
    without[np.arange(len(chosen)), chosen] = -np.inf
    second = get_profile(profile).choose(without, parameters, address)
    return np.where(np.arange(len(chosen)) % 10 == 9, second, chosen)


def timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(profile: str, name: str, logits: NDArray[np.float32], rounds: int) -> dict[str, object]:
    """Tokens a second of processor time of both sides, in turn, after a warm-up that compares them."""
    parameters, rows = SETTINGS[name], len(logits)
    address = NoiseAddress.of_response(SEED, PROMPT_LENGTH, rows)
    claimed = claims_of(profile, logits, parameters, address)
    ours = get_profile(profile).score(logits, claimed, parameters, address)
    theirs = replay(profile, logits, claimed, parameters)
    differing = sum(int(one) != two.reference for one, two in zip(ours.reference, theirs, strict=True))
    wrong = int((ours.reference != claimed).sum())
    wrong_by_replay = sum(one.reference != int(token) for one, token in zip(theirs, claimed, strict=True))
    verdicts = [decide(count, rows, LIMIT, []).outcome for count in (wrong, wrong_by_replay)]
    if differing or verdicts[0] is not verdicts[1]:
        raise SystemExit(f"{profile}, {name}: {differing} references differ, verdicts {verdicts}")
    plain, audit = [], []
    for _ in range(rounds):
        plain.append(timed(lambda: replay(profile, logits, claimed, parameters)))
        audit.append(timed(lambda: get_profile(profile).score(logits, claimed, parameters, address)))
    ratios = [one / other for one, other in zip(plain, audit, strict=True)]
    return {
        "profile": profile,
        "setting": name,
        "rows": rows,
        "mismatches": wrong,
        "references_that_differ": differing,
        "verdict": verdicts[0].value,
        "replay_tokens_per_second": round(rows / statistics.median(plain), 1),
        "audit_tokens_per_second": round(rows / statistics.median(audit), 1),
        "times_faster": round(statistics.median(ratios), 1),
        "times_faster_at_least": round(min(ratios), 1),
    }


def main() -> None:
    """Run all cases and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # scoring takes as many threads as it has cores
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    logits = synthetic_logits(options.rows, options.vocabulary)
    cases = [measure(profile, name, logits, options.rounds) for profile in PROFILES for name in SETTINGS]
    result = {
        "benchmark": "replay_baseline",
        "vocabulary": options.vocabulary,
        "numpy": np.__version__,
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "bar": BAR,
        "cases": cases,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
