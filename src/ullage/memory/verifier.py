"""Sessions of the verifier: connect, do one thing, claim what it showed."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ullage.claims import Claim, Window
from ullage.errors import UllageError
from ullage.memory.calibration import Calibration
from ullage.memory.claims import erasure_claims, holding_claims
from ullage.memory.erasure import Erasure, Plan, erase, greet
from ullage.memory.machine.segments import readable
from ullage.memory.protocol.messages import Bye, Declare, Segments
from ullage.memory.protocol.timing import Progress
from ullage.memory.protocol.wire import Connection, address_of
from ullage.memory.residency.cache_check import Recompute
from ullage.memory.residency.declared import DeclaredState
from ullage.memory.residency.snapshot import Finding, snapshot
from ullage.memory.residency.verify import Holding, HoldPlan, hold
from ullage.model.identity import identify


@dataclass(frozen=True)
class Held:
    """A residency session: what chains showed, the dump's findings if one was taken, and claims."""

    holding: Holding
    findings: tuple[Finding, ...]
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Declared:
    """What the machine is to hold: a model's folder, and noise where that leaves room. `machine` is the total
    as declared or inspected, None for the agent's word. `recompute` as in `DeclaredState`."""

    folder: Path
    machine: int | None
    recompute: Recompute | None = None


def run_hold(
    agent: str,
    plan: HoldPlan,
    calibration: Calibration,
    declared: Declared,
    *,
    inputs: dict[str, str],
    dump: bool,
    progress: Progress = lambda stage, done, total: None,
) -> Held:
    """Fill the ballast, then challenge the map. `dump` takes a snapshot as well. Raises as `hold`."""
    began = time.time_ns()
    model = identify(declared.folder)
    with Connection.open(*address_of(agent)) as connection:
        welcome = greet(connection)
        state = DeclaredState(declared.folder, model, declared.recompute)
        found = hold(
            connection, welcome, plan, calibration, state, machine=declared.machine, progress=progress
        )
        if dump:
            progress("comparing a dump", 0, 0)
        findings = _snapshot(connection, state) if dump else []
        with suppress(UllageError):
            connection.send(Bye())
    window = Window(start=str(began), end=str(time.time_ns()))
    claims = holding_claims(found, declared.machine, window, {**inputs, "model": model.digest})
    return Held(found, tuple(findings), claims)


def _snapshot(connection: Connection, state: DeclaredState) -> list[Finding]:
    """All that stands still: weights and ballast. Key-value memory was read and checked with each chain."""
    segments = readable(connection.ask(Declare(), Segments, 30).segments)
    contents = state.contents(segments)
    return snapshot(
        connection,
        [
            (index, segment, content.source)
            for index, (segment, content) in enumerate(zip(segments, contents, strict=True))
            if content
        ],
    )


def run_erasure(
    agent: str,
    plan: Plan,
    calibration: Calibration,
    machine_bytes: int | None,
    inputs: dict[str, str],
    *,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[Erasure, tuple[Claim, ...]]:
    """One erasure through a connection of its own. Raises as `erase`."""
    began = time.time_ns()
    with Connection.open(*address_of(agent)) as connection:
        found = erase(
            connection, greet(connection), plan, calibration, machine=machine_bytes, progress=progress
        )
        with suppress(UllageError):
            connection.send(Bye())
    window = Window(start=str(began), end=str(time.time_ns()))
    return found, erasure_claims(found, machine_bytes, window, inputs)
