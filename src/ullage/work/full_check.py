"""Products that travel: put together from tiles, compared with their root, checked in a thread of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
import time

import numpy as np
from numpy.typing import NDArray

from ullage.errors import MalformedError, UsageError
from ullage.work import freivalds
from ullage.work.commitment import commit
from ullage.work.kernels import default_kernel
from ullage.work.operands import left_rows, right_columns
from ullage.work.protocol import Tile
from ullage.work.shape import Shape
from ullage.work.window import Unit

_MOST_WAITING = 4


class FullCheck:
    """Collects tiles and checks whole products. A unit's `checked` stays None until it was looked at."""

    def __init__(self, shape: Shape) -> None:
        """Raises UsageError for a shape whose products cannot be checked whole."""
        if shape.inner > freivalds.MAX_INNER:
            raise UsageError(
                f"Products of {shape} cannot be checked whole, which takes K <= {freivalds.MAX_INNER}: "
                "leave out --full, or calibrate with another --shape."
            )
        self._shape = shape
        self._kernel = default_kernel(shape.inner)
        self._tables: dict[int, NDArray[np.int32]] = {}
        self._filled: dict[int, int] = {}
        self._coming: dict[int, int] = {}  # by slot: the job whose tiles are on their way
        # Bounded: a slot's thread waits here, so that a prover faster than the checks gets no more jobs.
        self._waiting: queue.Queue[tuple[Unit, NDArray[np.int32]] | None] = queue.Queue(_MOST_WAITING)
        self._pending: set[int] = set()
        self._wanted: set[int] = set()
        self._held_up = 0.0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def expect(self, unit: Unit) -> None:
        """A product was asked for."""
        with self._lock:
            self._pending.add(unit.number)
            self._wanted.add(unit.number)

    def awaits(self, number: int) -> bool:
        """Whether this job's product was asked for and not checked yet."""
        with self._lock:
            return number in self._pending

    def take(self, unit: Unit, tile: Tile) -> None:
        """Add rows. Raises MalformedError for rows out of order, doubled, or of another size, and for those
        of another product of this slot before the last one is whole."""
        width = 4 * self._shape.columns
        first = self._filled.get(unit.number, 0)
        rows, rest = divmod(len(tile.data), width)
        with self._lock:
            wanted = unit.number in self._wanted
        fits = not rest and rows > 0 and tile.first_row == first and first + rows <= self._shape.rows
        if not wanted or not fits or self._coming.setdefault(unit.slot, unit.number) != unit.number:
            raise MalformedError(f"it sent rows of job {unit.number} that do not fit (row {tile.first_row}).")
        if first == 0:
            self._tables[unit.number] = np.empty((self._shape.rows, self._shape.columns), dtype=np.int32)
        table = self._tables[unit.number]
        table[first : first + rows] = np.frombuffer(tile.data, dtype="<i4").reshape(rows, -1)
        self._filled[unit.number] = first + rows
        if first + rows == self._shape.rows:
            del self._tables[unit.number], self._filled[unit.number], self._coming[unit.slot]
            with self._lock:
                self._wanted.discard(unit.number)
            before = time.monotonic()
            self._waiting.put((unit, table))
            with self._lock:
                self._held_up += time.monotonic() - before

    def take_held_up(self) -> float:
        """Seconds since the last call that slots, together, waited for room among the checks."""
        with self._lock:
            found, self._held_up = self._held_up, 0.0
        return found

    def drop(self, slot: int, numbers: set[int]) -> None:
        """These jobs' slot was lost: what has not come of their products never will."""
        self._coming.pop(slot, None)
        with self._lock:
            gone = numbers & self._wanted
            self._wanted -= gone
            self._pending -= gone
        for number in gone:
            self._tables.pop(number, None)
            self._filled.pop(number, None)

    def settle(self, numbers: set[int], seconds: float) -> None:
        """Wait at most so long until none of these jobs is left to check."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._lock:
                if not numbers & self._pending:
                    return
            time.sleep(0.01)

    def stop(self) -> None:
        self._waiting.put(None)
        self._thread.join(10.0)

    def check(self, unit: Unit, product: NDArray[np.int32]) -> bool:
        """Whether this is the product, and the one committed to."""
        if commit(product).root != unit.root:
            return False
        left = left_rows(unit.seed, self._shape, 0, self._shape.rows)
        right = right_columns(unit.seed, self._shape)
        return freivalds.check(left, right, product, self._shape, self._kernel)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            unit, product = item
            # No room to check in is no proof of anything, and without this thread no slot would go on: the
            # unit stays unchecked, which the window says.
            with contextlib.suppress(MemoryError, RuntimeError):
                unit.checked = self.check(unit, product)
            with self._lock:
                self._pending.discard(unit.number)
