"""Audit throughput beside the plain forward pass of the same batches, in one run.

    python benchmarks/audit_throughput.py [--model PATH] [--settings mix|filtered|unfiltered] [--scores-only]

The audit is all that `ullage audit --calibration --bound` does with logits: scores, codelengths, sizes of
admissible sets, limits of the alarm, and the alarm itself. `--scores-only` leaves out all but the scores.

Both sides run in turn (A B A B), because machines are noisy; what counts is the ratio. Prints JSON: output
tokens per second of both, and their ratio with its spread over rounds. On a busy machine look at the ratio of
processor time, with OMP_NUM_THREADS=1 (threads that wait for each other burn time too).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ullage.model import instruction_set

instruction_set.pin()  # before torch computes anything

import numpy as np  # noqa: E402
import torch  # noqa: E402

from ullage.audit.bounds.alarm import log_e_process, mismatch_limits  # noqa: E402
from ullage.audit.bounds.noise_model import FlipCurve, NoiseModel  # noqa: E402
from ullage.audit.bundle.evidence import TokenScores  # noqa: E402
from ullage.audit.coding import TokenCoder  # noqa: E402
from ullage.audit.recompute import recompute  # noqa: E402
from ullage.log.record import ClosePart, OpenPart, Parameters, Record  # noqa: E402
from ullage.model.builtin import builtin_path  # noqa: E402
from ullage.model.reference import Reference  # noqa: E402
from ullage.sampling.address import NoiseAddress  # noqa: E402
from ullage.sampling.candidates import DEFAULT_WIDTH  # noqa: E402
from ullage.sampling.parameters import SamplingParameters  # noqa: E402
from ullage.sampling.profiles import Profile, get_profile  # noqa: E402

_BATCH = 64
NOTHING = "sha256:" + "0" * 64
UNFILTERED: Final = (SamplingParameters(1.0), SamplingParameters(0.8))
FILTERED: Final = (
    SamplingParameters(1.0, top_p=0.95),
    SamplingParameters(0.9, top_k=50),
    SamplingParameters(0.7, top_p=0.9, top_k=200),
)
# The demo's traffic: eight kinds of requests in turn.
MIX: Final = (
    UNFILTERED[0], UNFILTERED[1], FILTERED[0], FILTERED[1],
    UNFILTERED[0], FILTERED[2], UNFILTERED[0], SamplingParameters(0.0),
)  # fmt: skip
SETTINGS: Final = {"mix": MIX, "filtered": FILTERED, "unfiltered": UNFILTERED}
BOUND: Final = 0.06  # raw logits: what bfloat16 differs by at most
# As a calibration of a bfloat16 server fits it.
CURVE: Final = FlipCurve(0.006, 5.0, 0.18)
ALARM_FLOOR: Final = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model; the built-in one without")
    parser.add_argument("--settings", choices=sorted(SETTINGS), default="mix")
    parser.add_argument("--scores-only", action="store_true")
    parser.add_argument("--answers", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=128, help="output tokens an answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", default="murmur3-gumbel/f64")
    options = parser.parse_args()
    reference = Reference.load(options.model or builtin_path())
    profile = get_profile(options.profile)
    records = honest_records(reference, profile, SETTINGS[options.settings], options.answers, options.tokens)
    sequences = [(*record.open.prompt_ids, *record.output_ids) for record in records]
    lengths = [len(record.open.prompt_ids) for record in records]
    coder = None if options.scores_only else coder_for(reference.vocabulary_size)

    def forward() -> None:
        for _ in reference.iter_logits(sequences, lengths):
            pass

    def audit() -> None:
        scores = recompute(reference, profile, records, coder=coder)
        assert not any(found.mismatch.any() for found in scores)
        if coder is not None:
            alarm(scores)

    (plain, audited), (plain_cpu, audited_cpu) = interleave(forward, audit, options.rounds)
    tokens = sum(len(record.output_ids) for record in records)
    ratios = sorted(one / other for one, other in zip(plain, audited, strict=True))
    result = {
        "model": reference.identity.digest,
        "stack": reference.stack_digest,
        "threads": torch.get_num_threads(),
        "profile": profile.name,
        "settings": options.settings,
        "audit": "scores" if options.scores_only else "scores, codelengths, sets, alarm",
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


def coder_for(vocabulary_size: int) -> TokenCoder:
    """The noise model of a usual bfloat16 server, and sets of its bound."""
    noise = NoiseModel(CURVE, CURVE.inflated(1.5), vocabulary_size, 1e-4, 1, 0, 1)
    return TokenCoder(noise, DEFAULT_WIDTH, BOUND)


def alarm(scores: Sequence[TokenScores]) -> None:
    """The e-process over all tokens, as `watch` forms it."""
    codes = [found.codes for found in scores if found.codes is not None]
    flip = np.concatenate([one.flip for one in codes], axis=1)
    outside = np.concatenate([one.outside for one in codes])
    mismatch = np.concatenate([found.mismatch for found in scores])
    limits = mismatch_limits(flip[0], 2.0, ALARM_FLOOR)
    log_e_process(limits, mismatch & ~outside, outside, ALARM_FLOOR, list(flip[1:]))


def honest_records(
    reference: Reference,
    profile: Profile,
    settings: Sequence[SamplingParameters],
    answers: int,
    tokens: int,
) -> list[Record]:
    """Records of an honest server, `answers` of them, the settings in turn."""
    prompt = reference.tokenizer.encode("The history of the town begins with")
    records = []
    for kind, parameters in enumerate(settings):
        numbers = range(kind, answers, len(settings))
        seeds = [number * 7919 for number in numbers]
        outputs = sample(reference, profile, prompt, seeds, tokens=tokens, parameters=parameters)
        for number, output in zip(numbers, outputs, strict=True):
            records.append(_record(number, prompt, parameters, output))
    return sorted(records, key=lambda record: record.counter)


def _record(
    number: int, prompt: Sequence[int], parameters: SamplingParameters, output: Sequence[int]
) -> Record:
    given: dict[str, Any] = parameters.to_record()
    return Record(
        OpenPart(
            bytes_from_client=0,
            choice=0,
            counter=number,
            endpoint="completions",
            group=number,
            parameters=Parameters(max_tokens=len(output), stop=(), **given),
            prompt_ids=tuple(prompt),
            prompt_sources=((len(prompt), "client"),),
            request_digest=NOTHING,
            seed=number * 7919,
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


def sample(
    reference: Reference,
    profile: Profile,
    prompt: Sequence[int],
    seeds: Sequence[int],
    *,
    tokens: int,
    parameters: SamplingParameters,
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
            steps.append(profile.choose(result.logits[:, -1].numpy(), parameters, address))
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
