"""What every profile checks about its inputs, and how rows are shared out over threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.errors import FaultError, MalformedError, UsageError
from ullage.sampling.address import NoiseAddress

# For work that keeps a few float64 arrays of a whole block: they stay in a core's second-level cache.
CACHED_ELEMENTS: Final = 1 << 16
# For work that touches a block's logits once: the fixed cost of some fifty numpy calls does not count.
STREAMED_ELEMENTS: Final = 1 << 19
STREAMED_ROWS: Final = 16
_MAX_THREADS: Final = 8
# Below this many logits a hand-over to another thread costs more than it saves (32 rows of 4,096: six times
# the processor time, and more wall time too).
_PARALLEL_ELEMENTS: Final = 1 << 19

_pool: list[ThreadPoolExecutor] = []
_allowed: list[int] = [_MAX_THREADS]


def use_threads(count: int) -> None:
    """From now on take at most so many threads in this process, whatever cores it may use."""
    _allowed[0] = max(1, min(count, _MAX_THREADS))


def as_logits(logits: NDArray[np.float32], address: NoiseAddress) -> NDArray[np.float32]:
    """The logits as a contiguous (T, V) float32 array. Raises UsageError when they are none.

    float16 is widened (exactly); float64 is refused, because rounding it would change tokens silently.
    """
    given = np.asarray(logits)
    if given.ndim != 2 or given.shape[1] == 0:
        raise UsageError(f"Logits must have shape (rows, vocabulary), not {given.shape}.")
    if given.dtype not in (np.float32, np.float16):
        raise UsageError(f"Logits must be float32 or float16, not {given.dtype}.")
    if len(address) != len(given):
        raise UsageError(f"{len(given)} rows of logits came with {len(address)} noise addresses.")
    return np.ascontiguousarray(given, dtype=np.float32)


def as_claimed(claimed: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """The claimed tokens as (T,) int64. Raises MalformedError for an id outside the vocabulary."""
    given = np.asarray(claimed)
    rows, vocabulary_size = logits.shape
    if given.shape != (rows,) or (rows and given.dtype.kind not in "iu"):
        raise UsageError(f"{rows} rows of logits need {rows} integer token ids.")
    wrong = np.flatnonzero((given < 0) | (given >= vocabulary_size))
    if wrong.size:
        raise MalformedError(
            f"Row {wrong[0]} claims token id {given[wrong[0]]}; "
            f"the vocabulary has ids 0 to {vocabulary_size - 1}."
        )
    return given.astype(np.int64)


def row_maxima(logits: NDArray[np.float32], first_row: int) -> NDArray[np.float32]:
    """The largest logit of each row. Raises FaultError naming the row that holds NaN, +inf, or only -inf."""
    maxima: NDArray[np.float32] = logits.max(axis=1)
    wrong = np.flatnonzero(~np.isfinite(maxima))
    if wrong.size:
        row, value = int(wrong[0]), float(maxima[wrong[0]])
        what = "NaN" if np.isnan(value) else "+inf" if value > 0 else "no finite value"
        raise FaultError(
            f"The logits of row {first_row + row} hold {what}; the model's output cannot be sampled."
        )
    return maxima


def for_blocks(
    logits: NDArray[np.float32], work: Callable[[slice], None], *, elements: int, min_rows: int = 1
) -> None:
    """Call `work` for consecutive slices of rows, on as many threads as this process may use (at most 8,
    or what `use_threads` said).

    A slice holds about `elements` logits, and at least `min_rows` rows. numpy releases the interpreter's
    lock inside its loops, so plain threads scale. Results must not depend on where slices begin and end.
    """
    rows, vocabulary_size = logits.shape
    threads = min(_allowed[0], _usable_cores())
    size = max(min_rows, elements // vocabulary_size)
    if logits.size >= _PARALLEL_ELEMENTS:
        size = min(size, -(-rows // threads))
    slices = [slice(start, min(start + size, rows)) for start in range(0, rows, max(1, size))]
    if len(slices) < 2 or threads < 2:
        for rows_here in slices:
            work(rows_here)
        return
    if not _pool:
        _pool.append(ThreadPoolExecutor(threads, "ullage-sampling"))
    for done in [_pool[0].submit(work, rows_here) for rows_here in slices]:
        done.result()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Threads do not survive a fork; a child must start its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.clear)
