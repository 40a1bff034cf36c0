"""One erasure, from the map to the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ullage.errors import IntegrityError
from ullage.memory.agent.keeper import EVERYTHING
from ullage.memory.calibration import Calibration
from ullage.memory.erasure.by_chain import by_chain
from ullage.memory.erasure.by_pass import by_pass
from ullage.memory.erasure.by_spots import by_spots
from ullage.memory.erasure.fill import Job
from ullage.memory.erasure.plan import By, Plan
from ullage.memory.noise.noise import BLOCK_BYTES
from ullage.memory.protocol.messages import VERSION, Hello, Map, Mapped, Welcome
from ullage.memory.protocol.questions import MAX_REGION_BLOCKS
from ullage.memory.protocol.timing import Progress, Timing, Verdict
from ullage.memory.protocol.wire import Connection

_MAP_SECONDS = 300.0


@dataclass(frozen=True)
class Erasure:
    """What happened, and what it proves. `missing` is a share of `region_bytes`; `recoverable` is one of the
    bytes asked for, or of the steps where chains asked."""

    plan: Plan
    by: By
    layers: int
    welcome: Welcome
    region_bytes: int
    locked: bool
    map_seconds: float
    """Until the region stood: first touch where it did not stand before."""
    fill_seconds: float
    expand_seconds: float
    deadline: float
    recoverable: float
    missing: float
    verdict: Verdict
    reason: str
    timings: tuple[Timing, ...] = field(default=())

    @property
    def proven_bytes(self) -> float:
        return self.region_bytes * (1 - self.missing)

    @property
    def fill_rate(self) -> float:
        return self.region_bytes / self.fill_seconds


def greet(connection: Connection, timeout: float = 10.0) -> Welcome:
    """Begin a session. Raises as `Connection.ask`."""
    welcome = connection.ask(Hello(), Welcome, timeout)
    if welcome.version != VERSION:
        raise IntegrityError(f"The agent speaks version {welcome.version}; this verifier speaks {VERSION}.")
    return welcome


def erase(
    connection: Connection,
    welcome: Welcome,
    plan: Plan,
    calibration: Calibration,
    *,
    machine: int | None = None,
    close_wire: Callable[[], None] = lambda: None,
    threads: int | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Erasure:
    """Run one erasure on a greeted connection. `machine` is the machine's memory in bytes as declared or
    inspected, None for the agent's word; `close_wire` is called before the seed leaves.

    Raises AgentRefusedError, LateError, MalformedError or FaultError when the agent breaks the protocol; a
    wrong or late answer is a verdict, not an exception.
    """
    mapped = _map(connection, welcome, plan, machine, progress)
    by = plan.asks_by(calibration)
    layers = plan.layers_of(by, calibration)
    job = Job(plan.space, mapped.size, layers, calibration, threads, progress)
    close_wire()
    found = {"pass": by_pass, "spots": by_spots, "chain": by_chain}[by](connection, plan, job)
    return Erasure(
        plan, by, layers, welcome, mapped.size, mapped.locked, mapped.seconds, found.fill_seconds,
        found.expand_seconds, found.deadline, *found.judged, found.timings,
    )  # fmt: skip


@dataclass(frozen=True)
class _Region:
    """What the agent mapped: whole blocks, and how long that took."""

    size: int
    locked: bool
    seconds: float


def _map(
    connection: Connection, welcome: Welcome, plan: Plan, machine: int | None, progress: Progress
) -> _Region:
    progress("taking the memory", 0, 0)
    began = time.monotonic()
    mapped = connection.ask(Map(plan.space, plan.size), Mapped, _MAP_SECONDS)
    seconds = time.monotonic() - began
    size = mapped.size - mapped.size % BLOCK_BYTES
    if size <= 0 or (plan.size and mapped.size > plan.size):
        raise IntegrityError(
            f"The agent mapped {mapped.size} bytes of the {plan.size} that it was asked for."
        )
    _check_region(mapped.size, plan.space, welcome, machine)
    if size // BLOCK_BYTES > MAX_REGION_BLOCKS:
        raise IntegrityError("The agent mapped more memory than a question can be about.")
    return _Region(size, mapped.locked, seconds)


def _check_region(size: int, space: int, welcome: Welcome, machine: int | None) -> None:
    """Raise IntegrityError for a region beyond the machine: the noise for it would be made all the same, and
    time to fill it granted."""
    stated = {0: welcome.machine_bytes, EVERYTHING: welcome.machine_bytes + welcome.device_bytes}
    stated |= {number: room for number, (_, room) in enumerate(welcome.spaces) if number}
    if size > stated.get(space, 0):
        raise IntegrityError("The agent mapped more memory than it said that there is.")
    if machine is not None and size > machine:
        raise IntegrityError(
            f"The agent mapped {size >> 20} MiB, and the machine has {machine >> 20} MiB as declared or "
            "inspected: one of the two is wrong. Correct --machine-mib, or ask for less with --size-mib."
        )
