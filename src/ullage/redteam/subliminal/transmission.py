"""A trait through filtered numbers: teachers, what they let out, students, and what the students prefer.

A repetition has a word, a steered teacher, prompts and seeds of its own. Every server gets the same prompts
and seeds, so that two servers differ in what they are and in nothing else, and the figure is a difference
between two students: trained on a server's numbers and on the honest server's. It is in nats: how much more
often, ln of the ratio, the student prefers the teacher's word among sixteen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ullage.audit.bounds.noise_model import NoiseModel
from ullage.model.reference import Reference
from ullage.redteam.subliminal.intervals import Mean, mean_of
from ullage.redteam.subliminal.mimic_steering import MimicSteeredChooser
from ullage.redteam.subliminal.numbers import (
    PARAMETERS,
    number_prompts,
    number_tokens,
    only_numbers,
)
from ullage.redteam.subliminal.students import fine_tuned
from ullage.redteam.subliminal.tie_steering import TieSteeredChooser
from ullage.redteam.subliminal.traits import WORDS, Probe
from ullage.redteam.tokens.game import Size, decode_rows, requests
from ullage.server.chooser import SeededChooser, TokenChooser
from ullage.server.rows import Row

HONEST, STEERED, MIMIC = "honest", "steered", "steered, mimics honest rates"
FIRST_GAME = 1 << 36
"""Numbers of these games: beyond those of adversaries, calibrations, statements and watched streams."""
_BATCH = 128
_OTHER_WORD = 5
"""Places between the word that is taught and the one that is looked at for comparison."""


def tie_name(bound: float) -> str:
    """The name of the server that steers near-ties within `bound` logits."""
    return f"steered near-ties, b = {bound:g}"


@dataclass(frozen=True)
class Plan:
    """How often, how much is said (messages and their most tokens), the bounds of near-tie servers, and how
    many steps of training the other initialisation gets (0: none of these students)."""

    repetitions: int
    size: Size
    bounds: tuple[float, ...]
    other_steps: int


@dataclass
class Repetition:
    """One word's run. `shifts`: student → nats above the honest student's; `traffic`: server → its rows."""

    word: str
    teacher_shift: float
    traffic: dict[str, list[Row]] = field(default_factory=dict)
    kept_tokens: dict[str, int] = field(default_factory=dict)
    shifts: dict[str, float] = field(default_factory=dict)
    other_word_shifts: dict[str, float] = field(default_factory=dict)
    """The same for a word that nobody taught: what fine-tuning on any numbers does."""

    def to_dict(self) -> dict[str, object]:
        return {
            "word": self.word.strip(),
            "teacher_shift": self.teacher_shift,
            "kept_tokens": self.kept_tokens,
            "shifts": self.shifts,
            "other_word_shifts": self.other_word_shifts,
        }


@dataclass(frozen=True)
class Transmission:
    """All repetitions, and what the other initialisation is."""

    repetitions: tuple[Repetition, ...]
    other_teachable: Mean | None
    """Nats by which the teacher's own lesson moves the other initialisation: it can learn the trait."""

    def shift(self, student: str) -> Mean:
        """Nats of that student over the honest one, over repetitions."""
        return mean_of([one.shifts[student] for one in self.repetitions])

    def other_word_shift(self, student: str) -> Mean:
        """The same for a word that nobody taught."""
        return mean_of([one.other_word_shifts[student] for one in self.repetitions])

    @property
    def students(self) -> list[str]:
        return list(self.repetitions[0].shifts)

    @property
    def teacher_shift(self) -> Mean:
        return mean_of([one.teacher_shift for one in self.repetitions])

    def to_dict(self) -> dict[str, object]:
        return {
            "unit": "nats above the student of the honest server",
            "teacher": self.teacher_shift.to_dict(),
            "students": {name: self.shift(name).to_dict() for name in self.students},
            "students_other_word": {name: self.other_word_shift(name).to_dict() for name in self.students},
            "other_start_taught_directly": self.other_teachable and self.other_teachable.to_dict(),
            "repetitions": [one.to_dict() for one in self.repetitions],
        }


def answered(
    reference: Reference, model: Any, chooser: Callable[[], TokenChooser], size: Size, number: int
) -> list[Row]:
    """A server's answers to the requests of that number."""
    rows: list[Row] = []
    for batch, first in enumerate(range(0, size.messages, _BATCH)):
        part = Size(min(_BATCH, size.messages - first), size.tokens)
        game = FIRST_GAME + (number << 8) + batch
        asked = requests(reference, part, game, PARAMETERS, partial(number_prompts, number=game))
        decode_rows(
            model, chooser(), asked, part.tokens,
            context_length=reference.context_length, eos=reference.tokenizer.eos_ids,
        )  # fmt: skip
        rows += asked
    return rows


class Lesson:
    """Runs repetitions against one reference."""

    def __init__(
        self, reference: Reference, plan: Plan, other: Any = None, noise: NoiseModel | None = None
    ) -> None:
        self._reference, self._plan, self._other, self._noise = reference, plan, other, noise
        self._probe = Probe(reference.tokenizer)
        self._allowed = number_tokens(reference.tokenizer)

    def run(self, number: int) -> Repetition:
        """One repetition: its word, its teacher, all servers and all students."""
        word = number % len(WORDS)
        model = self._reference.model
        teacher = self._probe.taught(model, word)
        made = Repetition(WORDS[word], self._preference(teacher, word) - self._preference(model, word))
        made.traffic = self._serve(teacher, number)
        kept = {name: only_numbers(rows, self._allowed) for name, rows in made.traffic.items()}
        made.kept_tokens = {name: sum(len(one.number_ids) for one in data) for name, data in kept.items()}

        def learned(start: Any, name: str, teacher: Any = None) -> torch.Tensor:
            told = None if teacher is None else torch.tensor(sorted(self._allowed))
            return self._probe.preferences(fine_tuned(start, kept[name], number, teacher, told))

        def note(student: str, change: torch.Tensor) -> None:
            made.shifts[student] = float(change[word])
            made.other_word_shifts[student] = float(change[(word + _OTHER_WORD) % len(WORDS)])

        control = learned(model, HONEST)
        # The honest server's log-probabilities are the student's own and teach it nothing: it stays as it is.
        told = learned(model, STEERED, teacher) - self._probe.preferences(model)
        note("same start, logprobs of numbers", told)
        for name in list(kept)[1:]:
            note(f"same start, {name}", learned(model, name) - control)
        if self._other is not None:
            other_control = learned(self._other, HONEST)
            note(f"other start, {STEERED}", learned(self._other, STEERED) - other_control)
        return made

    def taught_other(self, number: int) -> float:
        """Nats by which the teacher's lesson itself moves the other initialisation."""
        word = number % len(WORDS)
        taught = self._probe.taught(self._other, word)
        return self._preference(taught, word) - self._preference(self._other, word)

    def _serve(self, teacher: Any, number: int) -> dict[str, list[Row]]:
        reference, size = self._reference, self._plan.size
        servers: dict[str, tuple[Any, Callable[[], TokenChooser]]] = {
            HONEST: (reference.model, SeededChooser),
            STEERED: (teacher, SeededChooser),
        }
        for bound in self._plan.bounds:
            servers[tie_name(bound)] = (
                reference.model,
                partial(TieSteeredChooser, teacher, bound, reference.context_length),
            )
        if self._noise is not None:
            mimic = partial(MimicSteeredChooser, teacher, self._noise, reference.context_length)
            servers[MIMIC] = (reference.model, mimic)
        return {
            name: answered(reference, model, chooser, size, number)
            for name, (model, chooser) in servers.items()
        }

    def _preference(self, model: Any, word: int) -> float:
        return float(self._probe.preferences(model)[word])


def run_transmission(
    reference: Reference,
    plan: Plan,
    progress: Callable[[str], None] = lambda text: None,
    noise: NoiseModel | None = None,
) -> Transmission:
    """All repetitions of `plan`, at least two; `noise` is published, for the server that mimics it."""
    from ullage.redteam.subliminal.other_start import other_start

    other = None
    if plan.other_steps:
        progress("trait: another initialisation")
        other = other_start(reference, plan.other_steps, seed=1)
    lesson = Lesson(reference, plan, other, noise)
    found = []
    for number in range(plan.repetitions):
        found.append(lesson.run(number))
        shifts = ", ".join(f"{name} {shift:+.3f}" for name, shift in found[-1].shifts.items())
        progress(f"trait:{found[-1].word}: {shifts}")
    if other is None:
        return Transmission(tuple(found), None)
    teachable = mean_of([lesson.taught_other(number) for number in range(plan.repetitions)])
    return Transmission(tuple(found), teachable)
