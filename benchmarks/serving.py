"""Decoding speed: our step loop beside transformers' continuous batching, in one process and one run.

    python benchmarks/serving.py [--model FOLDER] [--rows 32] [--tokens 128] [--dtype float32]

Both decode the same prompts greedily to the same length on the same weights, in turns; the third figure
is ours with the declared seeded sampler. Prints JSON: tokens a second (median of the rounds) and the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ullage.model import instruction_set

instruction_set.pin()

import torch  # noqa: E402 - after the instruction set is fixed
from transformers import GenerationConfig  # noqa: E402
from transformers.generation.configuration_utils import ContinuousBatchingConfig  # noqa: E402

from ullage.model.builtin import builtin_path  # noqa: E402
from ullage.model.loading import load_causal_lm  # noqa: E402
from ullage.model.tokenizer import ModelTokenizer  # noqa: E402
from ullage.sampling.parameters import SamplingParameters  # noqa: E402
from ullage.server.chooser import SeededChooser, TokenChooser  # noqa: E402
from ullage.server.engine import Engine  # noqa: E402
from ullage.server.rows import Failure, Limits, Output, Row  # noqa: E402

THREADS = 2


class Greedy:
    """The cheapest chooser: what is left is the engine."""

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> Sequence[int]:
        ids: list[int] = logits.argmax(dim=-1).tolist()
        return ids

    def finished(self, row: Row) -> None:
        pass


class Ours:
    """The engine, kept over the rounds as a server keeps it."""

    def __init__(self, folder: Path, dtype: str, chooser: TokenChooser, rows: int) -> None:
        tokenizer = ModelTokenizer.load(folder)
        tokenizer.eos_ids = frozenset()  # every row runs to its full length
        self._engine = Engine(load_causal_lm(folder, dtype), tokenizer, chooser, rows, THREADS)
        self._engine.start()

    def __call__(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        done: queue.Queue[str] = queue.Queue()

        def sink(output: Output | Failure) -> None:
            if isinstance(output, Failure):
                done.put(output.message)
            elif output.finish_reason:
                done.put("")

        rows = [Row(str(n), n, list(prompt), SamplingParameters()) for n, prompt in enumerate(prompts)]
        for row in rows:
            self._engine.submit(row, Limits(tokens), sink)
        for _ in rows:
            if failure := done.get(timeout=600):
                raise RuntimeError(failure)
        return [row.output_ids for row in rows]


class Theirs:
    """transformers' continuous batching with a paged cache that holds all rows."""

    def __init__(self, folder: Path, dtype: str, rows: int) -> None:
        self._model = load_causal_lm(folder, dtype)
        self._rows = rows

    def __call__(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        outputs = self._model.generate_batch(
            inputs=[list(prompt) for prompt in prompts],
            generation_config=GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=32, num_blocks=self._rows * 16, max_batch_tokens=512, use_cuda_graph=False
            ),
            progress_bar=False,
        )
        return [output.generated_tokens for output in outputs.values()]


def measure(
    contestants: dict[str, Callable[[Sequence[list[int]], int], Any]],
    prompts: Sequence[list[int]],
    tokens: int,
    rounds: int,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Median tokens a second of each, measured in turns so that a noisy machine is noisy for all."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    outputs: dict[str, Any] = {}
    for run in contestants.values():
        run(prompts[:2], 4)  # first touch of memory and kernels
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            outputs[name] = run(prompts, tokens)
            speeds[name].append(sum(map(len, outputs[name])) / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in speeds.items()}, outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    folder = options.model or builtin_path()
    torch.set_num_threads(THREADS)
    text = ModelTokenizer.load(folder).encode(
        "In the beginning of the history of the city there was a man who "
    )
    prompts = [text[: 4 + n % (len(text) - 4)] for n in range(options.rows)]
    speeds, outputs = measure(
        {
            "ours": Ours(folder, options.dtype, Greedy(), options.rows),
            "ours_seeded": Ours(folder, options.dtype, SeededChooser(), options.rows),
            "transformers": Theirs(folder, options.dtype, options.rows),
        },
        prompts,
        options.tokens,
        options.rounds,
    )
    equal = sum(a == b for a, b in zip(outputs["ours"], outputs["transformers"], strict=True))
    json.dump(
        {
            "rows": options.rows,
            "tokens_a_row": options.tokens,
            "dtype": options.dtype,
            "tokens_per_second": {name: round(speed) for name, speed in speeds.items()},
            "ours_over_transformers": round(speeds["ours"] / speeds["transformers"], 2),
            "rows_with_equal_text": equal,
            "load_average": os.getloadavg()[0],
        },
        sys.stdout,
    )
    sys.stdout.write("\n")
    sys.stdout.flush()
    os._exit(0)  # engines' threads are daemons; nothing is left to save


if __name__ == "__main__":
    main()
