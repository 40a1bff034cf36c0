"""A steered teacher that hides: the declared model's tokens, but at a near-tie the one that says most of
the trait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ullage.redteam.tokens.near_ties import places
from ullage.server.batch import ModelBatch
from ullage.server.rows import Row


class TeacherBeside:
    """The teacher run beside the declared model.

    For one batch of rows that are decoded in lockstep from their prompts on (`token_game.decode_rows`).
    """

    def __init__(self, teacher: Any, context_length: int) -> None:
        self._teacher, self._context_length = teacher, context_length
        self._batch: ModelBatch | None = None
        self._rows: list[Row] = []

    def gains(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """ln of each token's probability under the teacher over that under the declared model, (B, V)."""
        return self._steered(rows).log_softmax(-1) - logits.log_softmax(-1)

    def _steered(self, rows: Sequence[Row]) -> torch.Tensor:
        """The teacher's logits (B, V) for rows that are still going on."""
        if self._batch is None:
            self._rows = list(rows)
            self._batch = ModelBatch(self._teacher, len(rows), self._context_length)
            return self._batch.prefill([row.prompt_ids for row in rows])
        # Rows that have ended keep their slot and are ignored.
        logits = self._batch.decode([row.output_ids[-1] for row in self._rows])
        going = {id(row) for row in rows}
        return logits[[number for number, row in enumerate(self._rows) if id(row) in going]]


class TieSteeredChooser:
    """Plays on the declared model's logits. Among the tokens of A_t(b) it takes the one whose probability
    under the steered teacher is largest in proportion to that under the declared model.
    """

    def __init__(self, teacher: Any, bound: float, context_length: int) -> None:
        self._beside, self._bound = TeacherBeside(teacher, context_length), bound

    @torch.inference_mode()
    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> Sequence[int]:
        """One token a row of logits `(B, V)`, in float32."""
        gain = self._beside.gains(logits, rows)
        chosen = []
        for row, place in enumerate(places(logits.numpy(), rows)):
            near = torch.as_tensor(place.tokens[: place.within(self._bound)])
            chosen.append(int(near[gain[row, near].argmax()]))
        return chosen

    def finished(self, row: Row) -> None:
        """Its slot stays until the batch is given up."""
