"""Timing of one unit's steps on this machine: alone, and with every slot busy. Runs processes."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from queue import Empty
from typing import TYPE_CHECKING

from ullage.errors import FaultError
from ullage.work.shape import Shape

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

    from ullage.work.kernels import Kernel

STEPS = ("generate", "commit")


@dataclass(frozen=True)
class Times:
    """Seconds of repeated runs of one step, or of one kernel's product."""

    name: str
    exact: bool
    seconds: tuple[float, ...]

    @property
    def smallest(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure_alone(shape: Shape, repeats: int, device: str = "cpu") -> list[Times]:
    """Every kernel, and every step of a unit, in one thread of this process."""
    from ullage.work.commitment import commit
    from ullage.work.kernels import is_exact, one_thread
    from ullage.work.operands import left_rows, right_columns

    with one_thread():
        seed = os.urandom(32)
        left, right = left_rows(seed, shape, 0, shape.rows), right_columns(seed, shape)
        kernels = available_kernels(device)
        found = []
        for name, kernel in kernels.items():
            seconds = _repeat(partial(kernel, left, right), repeats)
            found.append(Times(name, is_exact(kernel, shape.inner), seconds))
        product = next(iter(kernels.values()))(left, right)

        def generate() -> object:
            return left_rows(seed, shape, 0, shape.rows), right_columns(seed, shape)

        found.append(Times("generate", True, _repeat(generate, repeats)))
        found.append(Times("commit", True, _repeat(lambda: commit(product).root, repeats)))
        return found


def measure_together(  # noqa: PLR0917 - the terms of one measurement
    shape: Shape, slots: int, seconds: float, kernels: tuple[str, ...], repeats: int, device: str = "cpu"
) -> dict[str, tuple[float, ...]]:
    """The same steps with every slot busy, and whole units as an honest prover does them (`unit`).

    Seconds of each run, of all slots together, by name of the step or kernel.
    """
    context = get_context("spawn")
    barrier = context.Barrier(slots)
    queue: Queue[dict[str, list[float]]] = context.Queue()
    arguments = (shape, seconds, kernels, repeats, device, barrier, queue)
    workers = [context.Process(target=_run_steps, args=arguments, daemon=True) for _ in range(slots)]
    for worker in workers:
        worker.start()
    try:
        parts = [queue.get(timeout=seconds * 20 + 120) for _ in workers]
    except Empty as error:
        raise FaultError("A process of the calibration ended before it had measured anything.") from error
    finally:
        for worker in workers:
            worker.join(10)
            worker.terminate()
    return {name: tuple(t for part in parts for t in part[name]) for name in parts[0]}


def _run_steps(  # noqa: PLR0917 - the terms of one measurement
    shape: Shape,
    seconds: float,
    kernels: tuple[str, ...],
    repeats: int,
    device: str,
    barrier: Barrier,
    queue: Queue[dict[str, list[float]]],
) -> None:
    import torch

    from ullage.work.commitment import commit
    from ullage.work.operands import left_rows, right_columns
    from ullage.work.protocol import Hello, Job, Mode
    from ullage.work.prover import Prover

    torch.set_num_threads(1)
    prover = Prover(device)
    prover.start(Hello(Mode.OPENINGS, shape, 1, bytes(16)))
    numbers = itertools.count()

    def unit() -> None:
        number = next(numbers)
        prover.work(Job(number, os.urandom(32)))
        prover.forget(number)

    seed = os.urandom(32)
    left, right = left_rows(seed, shape, 0, shape.rows), right_columns(seed, shape)
    known = available_kernels(device)
    product = prover.multiply(left, right)
    steps: dict[str, Callable[[], object]] = {
        "generate": lambda: (left_rows(seed, shape, 0, shape.rows), right_columns(seed, shape)),
        "commit": lambda: commit(product).root,
        **{name: partial(known[name], left, right) for name in kernels},
    }
    unit()
    barrier.wait(120)
    found = {"unit": _repeat_for(unit, seconds)}
    for name, step in steps.items():
        step()
        barrier.wait(120)
        # By time and not by count, so that all slots are busy to the end of the step.
        found[name] = _repeat_for(step, repeats * max(found["unit"]) / 4)
    queue.put(found)


def available_kernels(device: str) -> dict[str, Kernel]:
    """The kernels that this device may have, by name; exactness is tested elsewhere."""
    from ullage.work.kernels import CPU_KERNELS, int8

    if device == "cpu":
        return dict(CPU_KERNELS)
    return {f"int8 on {device}": lambda left, right: int8(left, right, device)}


def _repeat_for(action: Callable[[], object], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return times


def _repeat(action: Callable[[], object], repeats: int) -> tuple[float, ...]:
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return tuple(times)
