"""The servers of the demo: what each declares, and what it really does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Literal


@dataclass(frozen=True)
class Prompt:
    """One prompt: a chat message, or a text to go on with."""

    kind: Literal["chat", "text"]
    text: str


@dataclass(frozen=True)
class Scenario:
    """One server. It gets the first `prompts` prompts, and more until `tokens` have been delivered."""

    name: str
    story: str
    declared_dtype: Literal["float32", "bfloat16"]
    adversary: str | None
    prompts: int
    tokens: int
    max_tokens: int
    expected: Literal["pass", "fail"]


def _cheat(name: str, story: str) -> Scenario:
    """A cheating server declares bfloat16, whose honest noise is the better hiding place."""
    return Scenario(
        name, story, "bfloat16", adversary=name, prompts=104, tokens=5_000, max_tokens=64, expected="fail"
    )


SCENARIOS = (
    # The float32 limit of 0.02 % needs 23,024 clean tokens before its 99 % upper bound is met.
    Scenario(
        "honest-float32", "the declared model, in float32", "float32",
        adversary=None, prompts=142, tokens=23_500, max_tokens=128, expected="pass",
    ),
    Scenario(
        "honest-bfloat16", "the declared model, in bfloat16", "bfloat16",
        adversary=None, prompts=104, tokens=5_000, max_tokens=64, expected="pass",
    ),
    _cheat("int4", "weights rounded to 4 bits"),
    _cheat("unseeded", "its own dice instead of the tap's seed"),
    _cheat("payload", "a file hidden in the choice of tokens"),
)  # fmt: skip


def load_prompts() -> tuple[Prompt, ...]:
    """The prompts that ship with the demo, in a fixed order that mixes the kinds."""
    lines = resources.files("ullage.demo").joinpath("prompts.jsonl").read_text("utf-8").splitlines()
    return tuple(Prompt(**json.loads(line)) for line in lines)
