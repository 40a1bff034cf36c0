"""Audit throughput beside the plain forward pass of the same batches, in one run.

    python benchmarks/audit_throughput.py [--model PATH] [--answers 256] [--rounds 5]

Both sides run in turn (A B A B), because machines are noisy; what counts is the ratio. Prints JSON: tokens
per second of output tokens for recomputation with scores (no filters, float32) and for the forward pass
alone, and their ratio, with the spread over rounds. On a busy machine look at the ratio of processor time,
with OMP_NUM_THREADS=1 (threads that wait for each other burn time too).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ullage.model import instruction_set

instruction_set.pin()  # before torch computes anything

import numpy as np  # noqa: E402
import torch  # noqa: E402

from ullage.audit.recompute import recompute  # noqa: E402
from ullage.log.record import ClosePart, OpenPart, Parameters, Record  # noqa: E402
from ullage.model.builtin import builtin_path  # noqa: E402
from ullage.model.reference import Reference  # noqa: E402
from ullage.sampling.address import NoiseAddress  # noqa: E402
from ullage.sampling.parameters import SamplingParameters  # noqa: E402
from ullage.sampling.profiles import Profile, get_profile  # noqa: E402

_BATCH = 64
NOTHING = "sha256:" + "0" * 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model; the built-in one without")
    parser.add_argument("--answers", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=128, help="output tokens an answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", default="murmur3-gumbel/f64")
    options = parser.parse_args()
    reference = Reference.load(options.model or builtin_path())
    profile = get_profile(options.profile)
    prompt = reference.tokenizer.encode("The history of the town begins with")
    seeds = [number * 7919 for number in range(options.answers)]
    outputs = sample(reference, profile, prompt, seeds, options.tokens)
    parameters = Parameters(max_tokens=options.tokens, stop=(), temperature="1.0", top_k=0, top_p="1.0")
    records = [
        Record(
            OpenPart(
                bytes_from_client=0,
                choice=0,
                counter=number,
                endpoint="completions",
                group=number,
                parameters=parameters,
                prompt_ids=tuple(prompt),
                prompt_sources=((len(prompt), "client"),),
                request_digest=NOTHING,
                seed=seeds[number],
                stream=False,
                time_received=0,
            ),
            close=ClosePart(
                bytes_from_upstream=0,
                bytes_to_client=0,
                bytes_to_upstream=0,
                counter=number,
                finish_reason="length",
                outcome="complete",
                output_ids=tuple(output),
                released_digest=NOTHING,
                time_closed=0,
            ),
        )
        for number, output in enumerate(outputs)
    ]
    sequences = [(*record.open.prompt_ids, *record.output_ids) for record in records]
    lengths = [len(prompt)] * len(records)

    def forward() -> None:
        for _ in reference.iter_logits(sequences, lengths):
            pass

    def audit() -> None:
        scores = recompute(reference, profile, records)
        assert not any(found.mismatch.any() for found in scores)

    (plain, audited), (plain_cpu, audited_cpu) = interleave(forward, audit, options.rounds)
    tokens = sum(len(output) for output in outputs)
    ratios = sorted(one / other for one, other in zip(plain, audited, strict=True))
    result = {
        "model": reference.identity.digest,
        "stack": reference.stack_digest,
        "threads": torch.get_num_threads(),
        "profile": profile.name,
        "vocabulary": reference.vocabulary_size,
        "answers": len(records),
        "tokens": tokens,
        "rounds": options.rounds,
        "forward_tokens_per_second": tokens / statistics.median(plain),
        "audit_tokens_per_second": tokens / statistics.median(audited),
        "ratio": statistics.median(ratios),
        "ratio_lowest": ratios[0],
        "ratio_highest": ratios[-1],
        "ratio_of_processor_time": statistics.median(
            one / other for one, other in zip(plain_cpu, audited_cpu, strict=True)
        ),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(result, indent=1))  # the program's whole output


def sample(
    reference: Reference, profile: Profile, prompt: Sequence[int], seeds: Sequence[int], tokens: int
) -> list[list[int]]:
    """Outputs of an honest server: cached decoding in batches, tokens by the profile and the seeds.

    Honest ones matter: the scores of tokens that lose take longer, because more tokens can beat them.
    """
    outputs: list[list[int]] = []
    for start in range(0, len(seeds), _BATCH):
        rows = np.array(seeds[start : start + _BATCH], dtype=np.uint64)
        fed, cache, steps = torch.tensor([list(prompt)] * len(rows)), None, []
        for step in range(tokens):
            with torch.inference_mode():
                result = reference.model(input_ids=fed, past_key_values=cache, use_cache=True)
            address = NoiseAddress(rows, np.full(len(rows), len(prompt) - 1 + step), np.full(len(rows), step))
            steps.append(profile.choose(result.logits[:, -1].numpy(), SamplingParameters(), address))
            fed, cache = torch.from_numpy(steps[-1])[:, None], result.past_key_values
        outputs += np.stack(steps, axis=1).tolist()
    return outputs


Times = tuple[list[float], list[float]]


def interleave(one: Callable[[], None], other: Callable[[], None], rounds: int) -> tuple[Times, Times]:
    """Seconds of each, by the clock and of the processor, run in turn after one warm-up."""
    one()
    other()
    clock: Times = ([], [])
    processor: Times = ([], [])
    for _ in range(rounds):
        for place, run in enumerate((one, other)):
            start, used = time.perf_counter(), time.process_time()
            run()
            clock[place].append(time.perf_counter() - start)
            processor[place].append(time.process_time() - used)
    return clock, processor


if __name__ == "__main__":
    main()
