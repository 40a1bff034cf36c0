"""Skipped products: some rows of every product are left out, and committed to as noise."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ullage.redteam.work.adversary import Catch, WorkAdversary
from ullage.work.operands import left_rows, right_columns
from ullage.work.protocol import Job, Message, Open
from ullage.work.prover import Prover


class Skipping(Prover):
    """Computes the first rows only."""

    skipped = 0.2

    @property
    def done(self) -> int:
        """Rows of a product that are computed."""
        return self.shape.rows - int(self.shape.rows * self.skipped)

    def product(self, job: Job) -> NDArray[np.int32]:
        shape, done = self.shape, self.done
        # Rows of noise, with the spread of the true ones.
        spread = shape.inner**0.5 * 127 * 127 / 3
        result = np.random.default_rng().normal(0, spread, (shape.rows, shape.columns)).astype(np.int32)
        left = left_rows(job.seed, shape, 0, done)
        result[:done] = self.multiply(left, right_columns(job.seed, shape))
        return result


class Withholding(Skipping):
    """And says nothing when it is asked for one of the others: a row that never came proves nothing."""

    def answer(self, message: Message) -> Iterator[Message]:
        if not isinstance(message, Open) or message.row < self.done:
            yield from super().answer(message)


class SkippingAll(Prover):
    """Computes nothing and commits to nothing in particular, at once."""

    def product(self, job: Job) -> NDArray[np.int32]:
        del job
        return (
            np.frombuffer(os.urandom(4 * self.shape.columns), dtype="<i4")
            .repeat(self.shape.rows)
            .reshape(self.shape.rows, self.shape.columns)
        )


SKIPPED = WorkAdversary("skipped-rows", "leaves a fifth of the rows out", Skipping, Catch.OPENINGS, 0.2)
WITHHELD = WorkAdversary(
    "withheld-rows", "leaves a fifth of the rows out, and never opens one", Withholding, Catch.ACCOUNT, 0.2
)
SKIPPED_ALL = WorkAdversary("skipped-products", "answers noise at once", SkippingAll, Catch.OPENINGS, 1.0)
