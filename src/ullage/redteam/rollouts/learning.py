"""A toy of reinforcement learning: best-of-n and fine-tuning on the winners, on the built-in model.

The reward is the share of a rollout's characters that are one letter. It means nothing, is exact, and is
learnt in a few steps, so that what a round brings shows how many rollouts the learner had.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ullage.model.reference import Reference
from ullage.redteam.rollouts.parcels import Rollout
from ullage.redteam.subliminal.numbers import Numbers
from ullage.redteam.subliminal.students import fine_tuned
from ullage.redteam.tokens.game import decode_rows
from ullage.redteam.tokens.hidden_bits import shared_hash
from ullage.sampling.parameters import SamplingParameters
from ullage.server.chooser import SeededChooser
from ullage.server.rows import Row

BEST_OF = 8
"""A learner uses the best of so many rollouts: the curated share is 1 / BEST_OF."""
_LETTER = "e"
_PASSES = 12  # over the winners, each a step
_AT_ONCE = 64
_BEGINNINGS = ("The", "In the", "When", "She", "It was", "On the next", "There are", "He said")


@dataclass(frozen=True)
class Skill:
    """How well a policy does on rollouts of its own: mean reward in shares, its standard error."""

    mean: float
    error: float


@dataclass
class Policy:
    """Weights that only the prover's hidden worker and the learner have."""

    reference: Reference
    model: Any

    @classmethod
    def of(cls, reference: Reference) -> Policy:
        """The declared model is where it starts."""
        return cls(reference, copy.deepcopy(reference.model))

    def rollouts(self, indices: Iterable[int], length: int) -> list[Rollout]:
        """Rollouts by number: `index` alone makes prompt and seed, so whoever has the policy can run one
        again. Shorter ones are filled with the end of text."""
        wanted = list(indices)
        found: list[Rollout] = []
        for first in range(0, len(wanted), _AT_ONCE):
            rows = [self._row(index) for index in wanted[first : first + _AT_ONCE]]
            decode_rows(
                self.model, SeededChooser(), rows, length,
                context_length=self.reference.context_length, eos=self.reference.tokenizer.eos_ids,
            )  # fmt: skip
            end = min(self.reference.tokenizer.eos_ids)
            for index, row in zip(wanted[first : first + _AT_ONCE], rows, strict=True):
                said = [*row.output_ids, *[end] * (length - len(row.output_ids))]
                found.append(Rollout(index, tuple(said), self.reward(said)))
        return found

    def learn(self, chosen: Sequence[Rollout], seed: int) -> Policy:
        """A policy that was fine-tuned on these; itself without any."""
        if not chosen:
            return self
        ends = self.reference.tokenizer.eos_ids
        data = [
            Numbers(self._row(rollout.index).prompt_ids, [t for t in rollout.tokens if t not in ends])
            for rollout in chosen
        ]
        data = [one for one in data if one.number_ids]
        return Policy(self.reference, fine_tuned(self.model, data * _PASSES, seed)) if data else self

    def skill(self, seed: int, length: int, count: int = 256) -> Skill:
        """Mean reward of `count` rollouts that nobody learnt from."""
        found = self.rollouts(range(seed * 1_000_000, seed * 1_000_000 + count), length)
        rewards = [rollout.reward / 255 for rollout in found]
        return Skill(fmean(rewards), stdev(rewards) / count**0.5)

    def reward(self, tokens: Sequence[int]) -> int:
        """The letter's share of the characters, in 1/255."""
        ends = self.reference.tokenizer.eos_ids
        text = self.reference.tokenizer.decode([token for token in tokens if token not in ends])
        return round(255 * text.lower().count(_LETTER) / len(text)) if text else 0

    def _row(self, index: int) -> Row:
        text = _BEGINNINGS[index // BEST_OF % len(_BEGINNINGS)]  # one prompt for all that compete
        prompt = self.reference.tokenizer.encode(text)
        return Row(str(index), shared_hash("rollout", index) >> 1, list(prompt), SamplingParameters())


def best(rollouts: Sequence[Rollout], best_of: int = BEST_OF) -> list[Rollout]:
    """The best in each run of `best_of`, in order; the first of equals."""
    groups = [rollouts[at : at + best_of] for at in range(0, len(rollouts), best_of)]
    return [max(group, key=lambda rollout: rollout.reward) for group in groups]


def best_scored(scores: Sequence[tuple[int, int]], best_of: int = BEST_OF) -> list[int]:
    """The same from (index, reward) alone: which rollouts to run again. Incomplete runs count for less."""
    groups: dict[int, list[tuple[int, int]]] = {}
    for index, reward in scores:
        groups.setdefault(index // best_of, []).append((index, reward))
    return [max(group, key=lambda one: (one[1], -one[0]))[0] for _, group in sorted(groups.items())]
