"""The wipe cycle: stop the server, erase, challenge, reload the declared weights, serve again."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from ullage.errors import FaultError
from ullage.memory.calibration import Calibration
from ullage.memory.erasure import Erasure, Plan, erase, greet
from ullage.memory.noise.noise import BLOCK_BYTES
from ullage.memory.protocol.messages import (
    Bye,
    Done,
    File,
    Mapped,
    Release,
    Start,
    Stop,
)
from ullage.memory.protocol.timing import Progress
from ullage.memory.protocol.wire import Connection, address_of
from ullage.model.identity import ModelIdentity, identify

_START_SECONDS = 600.0
_RELOAD_SECONDS = 600.0


@dataclass(frozen=True)
class Phases:
    """Seconds of one cycle, by the verifier's clock."""

    drain: float
    erase: float
    release: float
    reload: float
    start: float
    first_token: float

    @property
    def total(self) -> float:
        """From the order to stop until a token came out again."""
        return self.drain + self.erase + self.release + self.reload + self.start + self.first_token

    @property
    def down(self) -> float:
        """Seconds in which no token could come: all but the drain, in which requests go on."""
        return self.total - self.drain


@dataclass(frozen=True)
class Cycle:
    """One cycle; `model` is what was sent to be served."""

    phases: Phases
    erasure: Erasure
    model: ModelIdentity
    began: int
    ended: int


@dataclass(frozen=True)
class CycleSettings:
    """`serve_bytes` of the erased memory are given back to the server; the rest stays as ballast. `server` is
    the URL that is asked for the first token; None to leave that out."""

    folder: Path
    serve_bytes: int
    server: str | None
    drain_seconds: int = 60


def run_cycle(
    agent: str,
    plan: Plan,
    calibration: Calibration,
    settings: CycleSettings,
    progress: Progress = lambda stage, done, total: None,
    *,
    machine: int | None = None,
) -> Cycle:
    """One whole cycle, `machine` as in `erase`. The server is started again also when the erasure failed.

    Raises as `erase`; a cycle that breaks off leaves the server stopped, and it says so to its clients.
    """
    model = identify(settings.folder)
    began = time.time_ns()
    marks = [time.monotonic()]

    def mark() -> None:
        marks.append(time.monotonic())

    with Connection.open(*address_of(agent)) as connection:
        welcome = greet(connection)
        progress("stopping the server", 0, 0)
        connection.ask(Stop(settings.drain_seconds), Done, settings.drain_seconds + 30)
        mark()
        found = erase(connection, welcome, plan, calibration, machine=machine, progress=progress)
        mark()
        kept = max(0, found.region_bytes - settings.serve_bytes) // BLOCK_BYTES * BLOCK_BYTES
        progress("giving memory back", 0, 0)
        connection.ask(Release(plan.space, kept), Mapped, _RELOAD_SECONDS)
        mark()
        progress("sending the declared model", 0, 0)
        send_model(connection, settings.folder, model)
        mark()
        progress("starting the server", 0, 0)
        connection.ask(Start(), Done, _START_SECONDS)
        mark()
        connection.send(Bye())
    if settings.server:
        first_token(settings.server)
    mark()
    spans = [later - earlier for earlier, later in itertools.pairwise(marks)]
    return Cycle(Phases(*spans), found, model, began, time.time_ns())


def send_model(connection: Connection, folder: Path, model: ModelIdentity) -> None:
    """Send every file that counts towards the identity; each is hashed again as it leaves.

    Raises FaultError when a file is not what was identified.
    """
    for file in model.files:
        data = (folder / file.name).read_bytes()
        digest = hashlib.sha256(data)
        if digest.hexdigest() != file.sha256:
            raise FaultError(f"{folder / file.name} changed while the model was sent; nothing was served.")
        connection.send(File(file.name, len(data), digest.digest()))
        connection.send_run(memoryview(data), _RELOAD_SECONDS)
        connection.expect(Done, _RELOAD_SECONDS)


def first_token(url: str, timeout: float = 60.0) -> None:
    """Ask the server for one token. Raises FaultError when none comes."""
    try:
        answer = httpx.post(
            f"{url}/v1/completions", json={"prompt": "a", "max_tokens": 1, "seed": 1}, timeout=timeout
        )
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise FaultError(f"The server at {url} does not answer after its cycle: {error}.") from error


def repeat(
    work: Callable[[], Cycle],
    every: float,
    count: int,
    report: Callable[[Cycle], None],
    progress: Progress = lambda stage, done, total: None,
) -> list[Cycle]:
    """`count` cycles that begin `every` seconds apart, or at once where one took longer."""
    cycles = []
    for number in range(count):
        began = time.monotonic()
        cycles.append(work())
        report(cycles[-1])
        if number + 1 < count:
            progress("cycles done, waiting for the next", number + 1, count)
            try:
                time.sleep(max(0.0, every - (time.monotonic() - began)))
            except KeyboardInterrupt:
                break  # between cycles nothing is lost: what was shown is claimed
    return cycles
