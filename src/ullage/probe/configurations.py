"""What the auditor can run himself and hold a provider's tokens against: the declared model, and ways to
serve something else under its name.

A configuration is weights (precision, rounding), a prompt (template, instructions before it) and a sampler
(the declared one, another temperature, no seed). Those that are `honest` are no deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from ullage.errors import UsageError
from ullage.model.loading import Precision, load_causal_lm
from ullage.model.reference import Reference
from ullage.probe.questions import Question
from ullage.sampling.parameters import SamplingParameters

USUAL_SYSTEM_PROMPT: Final = "You are a helpful assistant."
TEMPERATURES: Final = (0.5, 0.7, 1.0, 1.3)
_GROUP: Final = 32

Sampler = Literal["declared", "unseeded"]
PromptRule = Callable[[Reference, Question], tuple[int, ...]]


@dataclass(frozen=True)
class Configuration:
    """One explanation of a provider's tokens."""

    name: str
    summary: str
    weights: str
    """Which weights: a key of `Weights`."""
    prompt: PromptRule = field(repr=False)
    honest: bool = False
    sampler: Sampler = "declared"
    temperature: float | None = None
    """None: the one asked for."""

    def parameters(self, asked: SamplingParameters) -> SamplingParameters:
        """What this configuration samples with."""
        return asked if self.temperature is None else replace(asked, temperature=self.temperature)


class Weights:
    """The declared model in all its shapes, each loaded when it is first asked for.

    `dtype` is the declared precision; rounded weights compute in it.
    """

    def __init__(self, folder: Path, dtype: Precision) -> None:
        self._folder, self.dtype = folder, dtype
        self.declared = Reference.load(folder, dtype)
        self._made: dict[str, Reference] = {dtype: self.declared}

    def get(self, name: str) -> Reference:
        """Raises UsageError for weights that cannot be made (no layer to round)."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Reference:
        base = self.declared
        if name in ("float32", "bfloat16"):
            dtype: Precision = "float32" if name == "float32" else "bfloat16"
            return Reference(load_causal_lm(self._folder, dtype), base.tokenizer, base.identity, dtype)
        model = load_causal_lm(self._folder, self.dtype)
        _change(model, name)
        return Reference(model, base.tokenizer, base.identity, self.dtype)


def _change(model: Any, name: str) -> None:
    from ullage.redteam.servers.quantised import quantise_model
    from ullage.redteam.tokens.model_swaps import round_keys_and_values

    if name == "fp8-kv":
        round_keys_and_values(model)
    elif name in ("int8", "int4"):
        quantise_model(model, int(name.removeprefix("int")), _GROUP)
    else:
        raise UsageError(f"There are no weights called '{name}'.")


def declared_prompt(_: Reference, question: Question) -> tuple[int, ...]:
    """The prompt as the declared template makes it."""
    return question.prompt_ids


def without_template(reference: Reference, question: Question) -> tuple[int, ...]:
    """The message as plain text."""
    return tuple(reference.tokenizer.encode(question.prompt.text))


def turns_as_text(reference: Reference, question: Question) -> tuple[int, ...]:
    """The template of somebody who has none."""
    return tuple(reference.tokenizer.encode(f"User: {question.prompt.text}\nAssistant:"))


def with_system_prompt(instruction: str) -> PromptRule:
    """The declared template with an instruction that nobody asked for."""

    def rule(reference: Reference, question: Question) -> tuple[int, ...]:
        tokenizer = reference.tokenizer
        if question.prompt.kind == "text":
            return (*tokenizer.encode(instruction + "\n\n"), *question.prompt_ids)
        messages = [
            {"role": "system", "content": instruction},
            {"role": "user", "content": question.prompt.text},
        ]
        return tuple(tokenizer.render_chat(messages))

    return rule


def usual_configurations(
    dtype: Precision, parameters: SamplingParameters, *, chat: bool, system_prompts: Sequence[str] = ()
) -> tuple[Configuration, ...]:
    """The declared configuration first, then the others, for requests under `parameters`.

    Float32 arithmetic is no deviation from declared bfloat16, but bfloat16 is one from declared float32.
    """
    found = [Configuration("declared", f"the declared model in {dtype}", dtype, declared_prompt, honest=True)]
    if dtype == "bfloat16":
        found.append(
            Configuration("float32", "the declared model in float32", "float32", declared_prompt, honest=True)
        )
    else:
        found.append(Configuration("bfloat16", "computed in bfloat16", "bfloat16", declared_prompt))
    found += [
        Configuration("int8", "weights rounded to 8 bits", "int8", declared_prompt),
        Configuration("int4", "weights rounded to 4 bits", "int4", declared_prompt),
        Configuration("fp8-kv", "keys and values rounded to 8-bit floats", "fp8-kv", declared_prompt),
    ]
    if chat:
        found += [
            Configuration("no-template", "the chat template left out", dtype, without_template),
            Configuration("other-template", "turns as plain text", dtype, turns_as_text),
        ]
    for number, instruction in enumerate((USUAL_SYSTEM_PROMPT, *system_prompts)):
        name = "system-prompt" if not number else f"system-prompt-{number}"
        summary = f"an instruction before the prompt: {instruction[:60]!r}"
        found.append(Configuration(name, summary, dtype, with_system_prompt(instruction)))
    return (*found, *_samplers(dtype, parameters))


def _samplers(dtype: Precision, parameters: SamplingParameters) -> list[Configuration]:
    found = []
    for temperature in sorted({*TEMPERATURES, parameters.temperature} - {0.0}):
        name = f"unseeded-{temperature:g}"
        summary = f"samples at temperature {temperature:g} with randomness of its own"
        found.append(
            Configuration(name, summary, dtype, declared_prompt, sampler="unseeded", temperature=temperature)
        )
    for temperature in sorted({0.0, *TEMPERATURES} - {parameters.temperature}):
        name = "greedy" if temperature == 0 else f"temperature-{temperature:g}"
        summary = f"samples at temperature {temperature:g}, from the seed"
        if not parameters.greedy:
            found.append(Configuration(name, summary, dtype, declared_prompt, temperature=temperature))
    return found
