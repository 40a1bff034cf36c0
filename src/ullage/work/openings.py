"""Row openings: which rows, what they must be, and what passing says. No I/O.

A row of C costs the verifier K N multiplications where the product costs M K N. Rows are drawn over all rows
that were committed in a window, with replacement, after the last root of the window: a prover that left out a
share x of them passes k openings with probability (1 - x)^k.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.work.commitment import opens_to
from ullage.work.kernels import Kernel
from ullage.work.operands import left_rows, right_pieces
from ullage.work.shape import Shape


@dataclass(frozen=True)
class Draw:
    """Row `row` of the product of unit number `unit` (an index into the window's units)."""

    unit: int
    row: int


def draw_rows(
    units: int, shape: Shape, count: int, below: Callable[[int], int] = secrets.randbelow
) -> tuple[Draw, ...]:
    """`count` rows, uniform and independent, sorted by unit.

    `below` is for replays; the default is secret.
    """
    if units == 0:
        return ()
    drawn = (divmod(below(units * shape.rows), shape.rows) for _ in range(count))
    return tuple(Draw(unit, row) for unit, row in sorted(drawn))


def true_rows(seed: bytes, shape: Shape, rows: Sequence[int], kernel: Kernel) -> NDArray[np.int32]:
    """These rows of A B, (len(rows), N), computed from the seed alone."""
    if not rows:
        return np.empty((0, shape.columns), dtype=np.int32)
    left = np.concatenate([left_rows(seed, shape, row, 1) for row in rows])
    return np.concatenate([kernel(left, right) for right in right_pieces(seed, shape)], axis=1)


def row_is_committed(
    values: NDArray[np.int32], row: int, shape: Shape, path: Sequence[bytes], root: bytes
) -> bool:
    """Whether the true row `values` (N,) is what the prover committed to at place `row`."""
    return opens_to(values, row, shape.rows, path, root)


def survival(skipped: float, openings: int) -> float:
    """Probability that a prover that skipped this share of rows passes: (1 - x)^k."""
    return float((1.0 - skipped) ** openings)


def largest_bad_share(openings: int, bad: int, confidence: float) -> float:
    """Upper confidence bound of the share of rows not computed, `bad` of `openings` having failed.

    Clopper and Pearson 1934; for bad = 0 it is 1 - (1 - confidence)^(1/k).
    """
    if openings == 0 or bad >= openings:
        return 1.0
    if bad == 0:
        return float(1.0 - (1.0 - confidence) ** (1.0 / openings))
    from scipy.stats import beta

    return float(beta.ppf(confidence, bad + 1, openings - bad))
