"""Cheating servers as processes of their own, and what a verifier makes of their answers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import httpx
import numpy as np

from ullage.audit.bounds.statistics import lower_bound, upper_bound
from ullage.model.builtin import builtin_path
from ullage.model.reference import Reference
from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile

PROFILE = "murmur3-gumbel/f64"
MESSAGE_TOKENS = 80
CONCURRENCY = 16
_PROMPTS = (
    "The history of the sea is",
    "def read(path):\n    ",
    "On the next morning she",
    "Water boils when",
    "import os\n\n",
    '"Where are you going?" he',
)


def model_folder() -> Path:
    """The model that the tests serve: ULLAGE_TEST_MODEL, or the built-in one."""
    chosen = os.environ.get("ULLAGE_TEST_MODEL")
    return Path(chosen) if chosen else builtin_path()


@cache
def reference() -> Reference:
    return Reference.load(model_folder())


@dataclass(frozen=True)
class Answer:
    """One response, as somebody in front of the server sees it."""

    seed: int
    prompt_ids: list[int]
    output_ids: list[int]
    parameters: SamplingParameters


class CheatingServer:
    """`ullage redteam serve NAME`, or the honest `ullage serve` without a name; use it with `with`."""

    def __init__(self, name: str | None, *arguments: str) -> None:
        command = ["serve"] if name is None else ["redteam", "serve", name]
        command += ["--model", str(model_folder()), "--listen", "127.0.0.1:0", *arguments]
        self._command = [sys.executable, "-m", "ullage", *command]
        self._process: subprocess.Popen[str] | None = None
        self._url = ""
        self._sent = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"listening on (http://\S+)", line):
                self._url = found.group(1)
                return self
        raise AssertionError(f"{self._command} ended with {self._process.wait()}")

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def generate(self, tokens: int, parameters: SamplingParameters | None = None) -> list[Answer]:
        """At least so many output tokens, from concurrent requests for completions."""
        parameters = parameters or SamplingParameters()
        answers: list[Answer] = []
        with httpx.Client(base_url=self._url, timeout=120) as client, ThreadPoolExecutor(CONCURRENCY) as pool:
            while sum(len(answer.output_ids) for answer in answers) < tokens:
                numbers = range(self._sent, self._sent + CONCURRENCY)
                self._sent += CONCURRENCY
                answers += pool.map(lambda number: _ask(client, number, parameters), numbers)
        return answers


def _ask(client: httpx.Client, number: int, parameters: SamplingParameters) -> Answer:
    seed = 10_007 * number + 1
    response = client.post(
        "/v1/completions",
        json={
            "prompt": f"{_PROMPTS[number % len(_PROMPTS)]} {number}",
            "max_tokens": MESSAGE_TOKENS + number % 7,
            "seed": seed,
            "temperature": parameters.temperature,
            "top_p": parameters.top_p,
            "top_k": parameters.top_k,
            "return_token_ids": True,
        },
    )
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    return Answer(seed, choice["prompt_token_ids"], choice["token_ids"], parameters)


@dataclass(frozen=True)
class Rates:
    """Mismatches in tokens, and the bounds of their rate, each at 99 %."""

    mismatches: int
    tokens: int

    @property
    def lower(self) -> float:
        return lower_bound(self.mismatches, self.tokens, 0.99)

    @property
    def upper(self) -> float:
        return upper_bound(self.mismatches, self.tokens, 0.99)


def mismatch_rate(answers: Sequence[Answer], tokens: int = 2000) -> Rates:
    """How many of the first `tokens` output tokens are not the reference's own."""
    rows = reference().logits(
        [answer.prompt_ids + answer.output_ids for answer in answers],
        [len(answer.prompt_ids) for answer in answers],
    )
    wrong = [
        get_profile(PROFILE).score(
            logits,
            np.array(answer.output_ids, np.int64),
            answer.parameters,
            NoiseAddress.of_response(answer.seed, len(answer.prompt_ids), len(answer.output_ids)),
        ).margin > 0
        for answer, logits in zip(answers, rows, strict=True)
    ]  # fmt: skip
    seen = np.concatenate(wrong)[:tokens]
    return Rates(int(seen.sum()), len(seen))
