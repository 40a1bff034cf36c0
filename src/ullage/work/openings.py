"""Row openings: which rows, what they must be, and what passing says. No I/O.

A row of C costs the verifier K N multiplications where the product costs M K N. Rows are drawn over all rows
that were committed in a window, with replacement, after the last root of the window: a prover that left out a
share x of them passes k openings with probability (1 - x)^k.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.work.commitment import opens_to
from ullage.work.kernels import Kernel
from ullage.work.operands import left_rows, right_pieces
from ullage.work.shape import Shape

_BISECTIONS = 100


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
    """Upper confidence bound of the mean share of rows not computed, `bad` of `openings` having failed.

    It holds for a prover that leaves out more or less as it sees what failed, and stops when that suits it.
    Whatever it does, at most f of k rows fail although the mean share was x with a chance of at most
    exp(-k KL(f/k || x)): exp(-s) to the number of failures over its conditional expectation is a martingale
    (Chernoff 1952), and log(1 - x (1 - exp(-s))) is concave in x. Every f has its part of the error, 0.9 the
    one that honest machines show and 0.1 / (f (f + 1)) each other, since which it is may be chosen. Bounds
    for a fixed share (Clopper and Pearson) are too low in up to 11 % of such a prover's accounts, not 1 %.

    For bad = 0 it is 1 - (0.9 (1 - confidence))^(1/k).
    """
    if openings == 0 or bad >= openings:
        return 1.0
    part = 0.1 / (bad * (bad + 1)) if bad else 0.9
    allowed = -math.log(part * (1.0 - confidence)) / openings
    if bad == 0:
        return -math.expm1(-allowed)
    seen, low, high = bad / openings, bad / openings, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        against = (1 - seen) * math.log((1 - seen) / (1 - middle)) if middle < 1 else math.inf
        low, high = (low, middle) if seen * math.log(seen / middle) + against >= allowed else (middle, high)
    return high
