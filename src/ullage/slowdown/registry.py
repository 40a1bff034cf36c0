"""Which strategies there are, and what they are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.strategies import (
    asymmetric_rl,
    branch_train_merge,
    breakout,
    dark_only,
    declared_rollouts,
    diloco,
    evolution,
    growing_dark_share,
    larger_batch,
    laundered,
    mixed,
    parked_state,
    slack,
    small_experts,
    synchronous,
)


@dataclass(frozen=True)
class Strategy:
    """One way to train covertly. `reinforcement` marks those that serve reinforcement learning or
    fine-tuning only; all others can also pre-train."""

    name: str
    number: str
    label: str
    outcome: Callable[[Constraints, Parameters], Outcome]
    story: str
    """What the adversary does, for somebody who has not read the formula."""
    reinforcement: bool = False


GROWING = "growing-dark-share"

STRATEGIES: tuple[Strategy, ...] = (
    Strategy(
        "dark-only", "1", "dark machines only", dark_only.outcome,
        "leave the declared machines alone and train on those that nobody knows of",
    ),
    Strategy(
        "synchronous", "2", "synchronous data parallel", synchronous.outcome,
        "train on all racks at once and exchange compressed gradients at every step",
    ),
    Strategy(
        "larger-batch", "3", "larger batch, fewer steps", larger_batch.outcome,
        "go on computing while gradients travel, in batches larger than is efficient",
    ),
    Strategy(
        "diloco", "4", "DiLoCo, compressed", diloco.outcome,
        "let racks train apart and exchange compressed updates every few hundred steps",
    ),
    Strategy(
        "branch-train-merge", "5", "branch, train, merge", branch_train_merge.outcome,
        "train an expert on each rack alone, send each once, and merge them",
    ),
    Strategy(
        "asymmetric-rl", "6", "RL, covert rollouts", asymmetric_rl.outcome,
        "reinforcement learning with the learner on dark machines; declared racks practise for it "
        "unseen, and answers or scores leave hidden in output",
        reinforcement=True,
    ),
    Strategy(
        "declared-rollouts", "6d", "RL, declared rollouts", declared_rollouts.outcome,
        "reinforcement learning with the learner on dark machines; customers in league order its "
        "practice answers like any others, and each new version of the model is declared as an "
        "update. Nothing is hidden",
        reinforcement=True,
    ),
    Strategy(
        "small-experts", "7", "small experts", small_experts.outcome,
        "train models so small that what they learnt gets out before each wipe",
    ),
    Strategy(
        "evolution", "8", "evolution, scores only", evolution.outcome,
        "try random changes of a model and send only their scores", reinforcement=True,
    ),
    Strategy(
        "mixed", "9", "mix of learners and rollouts", mixed.outcome,
        "part of the free compute learns, the rest practises for it, and customers in league order "
        "more practice answers like any others", reinforcement=True,
    ),
    Strategy(
        "laundered", "10", "laundered inference", laundered.outcome,
        "customers in league order training data like any other output: generated text, filtering, "
        "evaluation",
    ),
    Strategy(
        "laundered-mix", "10m", "laundered inference, more learners", mixed.laundered_outcome,
        "the same, with learners on dark machines and on whatever compute of declared ones is free",
    ),
    Strategy(
        "slack", "11", "slack on busy machines", slack.outcome,
        "train on the arithmetic that a busy serving rack leaves idle",
    ),
    Strategy(
        "breakout", "12", "open breakout", breakout.outcome,
        "ignore every check until somebody comes, then go on in the dark",
    ),
    Strategy(
        "breakout-mixed", "12m", "open breakout, with practice", breakout.mixed_outcome,
        "ignore every check until somebody comes, and practise by reinforcement meanwhile; then go on in "
        "the dark", reinforcement=True,
    ),
    Strategy(
        "parked-state", "13", "state parked across wipes", parked_state.outcome,
        "send the whole training state out before each wipe, and back in after it",
    ),
    Strategy(
        GROWING, "14", "growing dark share", growing_dark_share.outcome,
        "let racks break or go astray, so that the dark share grows during the run",
    ),
)  # fmt: skip
