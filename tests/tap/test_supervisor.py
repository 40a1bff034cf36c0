"""What watches over a tap fails closed: a watch that has died does not leave the gate as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ullage.tap.beside import Beside
from ullage.tap.enforcer_watch import EnforcerWatch
from ullage.tap.failures import Failure, LogUnavailableError
from ullage.tap.gate import Gate
from ullage.tap.supervisor import Supervisor
from ullage.tap.telemetry import Declaration, Sampler
from ullage.tap.telemetry_door import TelemetryDoor
from ullage.tap.upstream import Traffic


def test_a_watch_that_fails_closes_the_gate_for_good(capsys: pytest.CaptureFixture[str]) -> None:
    class Meter:
        looks = 0

        def alive(self) -> bool:
            Meter.looks += 1
            if Meter.looks > 1:
                raise OverflowError("a time that no clock has")
            return True

    gate, meter = Gate(), Meter()
    recorder: Any = SimpleNamespace(log=SimpleNamespace(failure=None))
    watched: Any = meter
    supervisor = Supervisor(gate, recorder, None, meter=watched)
    supervisor.look_at_meter()
    assert gate.reason is None
    asyncio.run(_beside(gate, "the watch", supervisor.run()))
    assert gate.holds(Failure.INTERNAL_ERROR)
    assert "the watch failed (OverflowError: a time that no clock has)" in capsys.readouterr().err


def test_an_enforcer_watch_that_fails_closes_the_gate() -> None:
    class Client:
        async def answers(self, patience: float) -> bool:
            raise ValueError("an answer that nobody thought of")

    gate, client = Gate(), Client()
    watched: Any = client
    asyncio.run(_beside(gate, "the watch of the enforcer", EnforcerWatch(watched, gate).run()))
    assert gate.holds(Failure.INTERNAL_ERROR)


def test_telemetry_that_fails_closes_the_gate(tmp_path: Path) -> None:
    """As when the wire journal of the connection that it asks over cannot be written."""

    class Broken:
        def get(self, path: str, traffic: Traffic) -> Any:
            raise LogUnavailableError("the disk is full")

    field = {"kind": "counter", "name": "served", "quantum": 1}
    declared = {"version": 1, "interval_seconds": 1, "bits_per_day_budget": 1e6, "field": [field]}
    broken: Any = Broken()
    door = TelemetryDoor(Sampler(Declaration.model_validate(declared)), broken, tmp_path / "out")
    gate = Gate()
    asyncio.run(_beside(gate, "telemetry", door.run()))
    assert gate.holds(Failure.INTERNAL_ERROR)


def test_what_is_stopped_has_not_failed() -> None:
    async def stopped(gate: Gate) -> None:
        beside = Beside(gate)
        beside.start("a sleeper", asyncio.sleep(60))
        await asyncio.sleep(0)
        await beside.stop()

    gate = Gate()
    asyncio.run(stopped(gate))
    assert gate.reason is None


async def _beside(gate: Gate, name: str, work: Coroutine[Any, Any, None]) -> None:
    """Run it until the gate has closed. Raises TimeoutError."""
    beside = Beside(gate)
    beside.start(name, work)
    async with asyncio.timeout(10):
        while gate.reason is None:
            await asyncio.sleep(0.01)
    await beside.stop()
