"""What runs on a Ray worker: the declared model, and batches of records to score.

Ray makes this class an actor (`ray_pool.py`); nothing here knows of Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ullage import __version__
from ullage.audit.bundle.evidence import TokenScores
from ullage.audit.coding import TokenCoder
from ullage.errors import FaultError, UllageError
from ullage.log.record import Record
from ullage.model import instruction_set

if TYPE_CHECKING:
    from ullage.model.reference import Reference


@dataclass(frozen=True)
class Task:
    """What every worker of one audit is told.

    `model`: the declared model's folder on the worker's machine; None for the built-in one, wherever that
    lies there. `threads`: of torch, in each worker.
    """

    model: str | None
    profile: str
    threads: int
    entropy: bool = False
    coder: TokenCoder | None = None


@dataclass(frozen=True)
class Introduction:
    """Who a worker is: all that must be equal for its scores to be those of another machine."""

    version: str
    model: str
    stack: str
    dtype: str


@dataclass(frozen=True)
class Refusal:
    """Why a worker cannot take part, as a sentence."""

    sentence: str


class Worker:
    """One process with a reference of its own."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._reference: Reference | None = None

    def introduce(self) -> Introduction | Refusal:
        """Load the weights, and say what was loaded."""
        instruction_set.pin()  # before torch computes anything
        import torch

        from ullage.model.builtin import builtin_path
        from ullage.model.reference import Reference
        from ullage.sampling.logits import use_threads

        torch.set_num_threads(self._task.threads)
        use_threads(self._task.threads)
        try:
            reference = Reference.load(Path(self._task.model) if self._task.model else builtin_path())
        except UllageError as error:
            return Refusal(str(error))
        self._reference = reference
        return Introduction(__version__, reference.identity.digest, reference.stack_digest, reference.dtype)

    def score(self, batches: Sequence[Sequence[Record]]) -> list[TokenScores]:
        """The scores of each record, batch after batch; every batch must be one of `plan_batches`."""
        from ullage.audit.recompute import recompute
        from ullage.sampling.profiles import get_profile

        if self._reference is None:
            raise FaultError("A worker was asked for scores before it had loaded the model.")
        task, profile = self._task, get_profile(self._task.profile)
        found: list[TokenScores] = []
        for batch in batches:
            found += recompute(self._reference, profile, batch, entropy=task.entropy, coder=task.coder)
        return found
