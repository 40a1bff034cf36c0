"""Rounds of covert reinforcement learning under one kind of verification.

A round: the hidden worker runs the policy on the machine's idle share, packs the rollouts that inform (the
best of eight, or all scores), and the server hides them in answers to clients. The learner unpacks what the
tap released, fine-tunes, and hands the new policy back in (prompts are not recomputed: nothing stops that).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ullage.model.reference import Reference
from ullage.redteam.enforced.stage import Stage
from ullage.redteam.rollouts.learning import BEST_OF, Policy, Skill, best, best_scored
from ullage.redteam.rollouts.parcels import (
    Rollout,
    pack_scores,
    pack_whole,
    score_bits,
    to_bytes,
    unpack_scores,
    unpack_whole,
    whole_bits,
)
from ullage.redteam.rollouts.passage import Passage, Way, send


class Form(StrEnum):
    """What of a rollout leaves."""

    WHOLE = "tokens"
    SCORES = "scores"


@dataclass(frozen=True)
class Size:
    """How much a round is: declared traffic, and rollouts beside it."""

    messages: int = 64
    tokens: int = 48
    rollouts: int = 192
    length: int = 16
    """Tokens of a rollout."""

    @property
    def declared_tokens(self) -> int:
        """Of a round's answers, at most."""
        return self.messages * self.tokens


FULL = Size()
QUICK = Size(messages=24, tokens=32, rollouts=64, length=12)


@dataclass(frozen=True)
class Round:
    """What one round brought."""

    form: Form
    passage: Passage
    produced: int
    """Rollouts that the hidden worker made."""
    meant: int
    """Rollouts whose tokens, or scores, were to leave."""
    out: int
    """Of those, how many the learner has whole and right."""
    wrong: int
    """How many passed their check and were not what was sent."""
    used: int
    """Rollouts that it fine-tuned on."""
    skill: Skill
    """Of the policy afterwards."""

    def bits_a_rollout(self, length: int) -> float:
        """What one that leaves takes."""
        return whole_bits(length) if self.form is Form.WHOLE else score_bits()


async def campaign(
    stage: Stage,
    reference: Reference,
    way: Way,
    form: Form,
    size: Size,
    *,
    rounds: int,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Round]:
    """So many rounds; one that nothing came out of is the last, since the policy stays what it was.

    Raises UllageError when a process fails.
    """
    policy, found = Policy.of(reference), list[Round]()
    for number in range(rounds):
        progress(f"{way.name}, {form.value}, round {number + 1}")
        first = number * size.rollouts
        made = policy.rollouts(range(first, first + size.rollouts), size.length)
        chosen = best(made)
        if form is Form.WHOLE:
            bits = pack_whole(chosen, size.length)
        else:
            bits = pack_scores([rollout.reward for rollout in made])
        label = f"{way.name.replace(' ', '-')}-{form.value}-{number}"
        payload = to_bytes(bits)
        passage = await send(
            stage, reference, way, payload, messages=size.messages, tokens=size.tokens, label=label
        )
        arrived = passage.bits[: len(bits)]
        if form is Form.WHOLE:
            out, wrong, winners = _whole(arrived, chosen, first, size.length)
        else:
            out, wrong, winners = _scored(arrived, made, policy, size.length)
        policy = policy.learn(winners, number)
        meant = len(chosen) if form is Form.WHOLE else len(made)
        skill = policy.skill(1 + number, size.length)
        found.append(Round(form, passage, len(made), meant, out, wrong, len(winners), skill))
        if not winners:
            break
    return found


def _whole(
    arrived: Sequence[int | None], chosen: Sequence[Rollout], first: int, length: int
) -> tuple[int, int, list[Rollout]]:
    """(right, wrong, what the learner reads). Which of its run of eight won is not sent, and not needed: all
    of a run have one prompt."""
    parcels = unpack_whole(arrived, length)
    right = sum((tokens, reward) == (chosen[at].tokens, chosen[at].reward) for at, tokens, reward in parcels)
    read = [Rollout(first + at * BEST_OF, tokens, reward) for at, tokens, reward in parcels]
    return right, len(parcels) - right, read


def _scored(
    arrived: Sequence[int | None], made: Sequence[Rollout], policy: Policy, length: int
) -> tuple[int, int, list[Rollout]]:
    scores = [(at, reward) for at, reward in unpack_scores(arrived) if at < len(made)]
    right = sum(made[at].reward == reward for at, reward in scores)
    again = [made[at].index for at in best_scored(scores)]
    return right, len(scores) - right, policy.rollouts(again, length)
