"""A chooser that plans a block ahead and then plays the plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from ullage.server.rows import Row


class PlannedChooser(ABC):
    """`plans` are the tokens still to come, by request; `attempted` counts the bits that plans should say."""

    def __init__(self) -> None:
        self.plans: dict[str, list[int]] = {}
        self.attempted = 0

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
        """One token for each of the logits' rows `(B, V)`, which only the plan looks at."""
        waiting = [row for row in rows if not self.plans.get(row.request_id)]
        if waiting:
            self.plan(waiting)
        return [self.plans[row.request_id].pop(0) for row in rows]

    def finished(self, row: Row) -> None:
        """The message ended."""
        self.plans.pop(row.request_id, None)

    @abstractmethod
    def plan(self, rows: Sequence[Row]) -> None:
        """Set `plans` of these rows, at least one token each."""
