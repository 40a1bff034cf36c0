"""What watches over a tap fails closed: a watch that has died does not leave the gate as it was."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ullage.tap.beside import Beside
from ullage.tap.choices.enforcer_watch import EnforcerWatch
from ullage.tap.clients.app import TapApp
from ullage.tap.failures import Failure, LogUnavailableError
from ullage.tap.gate import Gate
from ullage.tap.operations.telemetry import Declaration, Sampler
from ullage.tap.operations.telemetry_door import TelemetryDoor
from ullage.tap.supervisor import Supervisor
from ullage.tap.tell import tell_operator
from ullage.tap.upstream.connections import Traffic


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


class _BrokenOnce:
    """A server's telemetry over a connection that fails, the first time it is asked."""

    def __init__(self, error: Exception) -> None:
        self.asked = 0
        self._error = error

    @contextlib.asynccontextmanager
    async def get(self, path: str, traffic: Traffic) -> AsyncIterator[Any]:
        self.asked += 1
        if self.asked == 1:
            raise self._error
        yield SimpleNamespace(status=200, whole=self._whole)

    async def _whole(self, limit: int) -> bytes:
        return b'{"served": 7}'


def _telemetry(broken: Any, gate: Gate, out: Path) -> TelemetryDoor:
    field = {"kind": "counter", "name": "served", "quantum": 1}
    declared = {"version": 1, "interval_seconds": 1, "bits_per_day_budget": 1e6, "field": [field]}
    sampler = Sampler(Declaration.model_validate(declared))
    return TelemetryDoor(sampler, broken, gate, out, sleep=lambda seconds: asyncio.sleep(seconds / 20))


def test_telemetry_that_fails_closes_the_gate(tmp_path: Path) -> None:
    gate = Gate()
    door = _telemetry(_BrokenOnce(OverflowError("a defect")), gate, tmp_path / "out")
    asyncio.run(_beside(gate, "telemetry", door.run()))
    assert gate.holds(Failure.INTERNAL_ERROR)


def test_telemetry_that_the_wire_journal_cannot_take_is_the_logs_fault_and_heals(tmp_path: Path) -> None:
    """A disk that is full for a moment closes the tap for a moment, as over a client's request."""
    gate, out = Gate(), tmp_path / "out"
    broken = _BrokenOnce(LogUnavailableError("the disk is full"))
    recorder: Any = SimpleNamespace(log=SimpleNamespace(failure=None))

    async def run() -> None:
        beside = Beside(gate)
        beside.start("telemetry", _telemetry(broken, gate, out).run())
        async with asyncio.timeout(10):
            while not gate.holds(Failure.LOG_UNAVAILABLE):
                await asyncio.sleep(0.01)
            beside.start("the watch", Supervisor(gate, recorder, None).run())
            while gate.holds(Failure.LOG_UNAVAILABLE) or not out.exists() or ":7}" not in out.read_text():
                await asyncio.sleep(0.01)
        await beside.stop()

    asyncio.run(run())
    assert not gate.alarms[Failure.INTERNAL_ERROR]


class _Nobody(io.StringIO):
    """A standard error behind which nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_what_is_in_flight_is_cancelled_though_nobody_reads_the_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def request(gate: Gate) -> None:
        gate.enter()
        try:
            await asyncio.sleep(60)
        finally:
            gate.leave()

    async def run() -> None:
        gate = Gate()
        task = asyncio.ensure_future(request(gate))
        await asyncio.sleep(0)
        gate.trip(Failure.CLOCK_UNSURE, "the clock has jumped")
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await task
        gate.clear(Failure.CLOCK_UNSURE)
        assert gate.reason is None

    monkeypatch.setattr(sys, "stderr", _Nobody())
    asyncio.run(run())


def test_requests_are_cancelled_before_anything_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message may wait for whoever reads it."""
    asked: list[int] = []

    async def run() -> None:
        gate = Gate()
        task = asyncio.ensure_future(asyncio.sleep(60))
        gate._inside.add(task)
        monkeypatch.setattr("ullage.tap.gate.tell_operator", lambda _: asked.append(task.cancelling()))
        gate.trip(Failure.CLOCK_UNSURE, "the clock has jumped")
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert asked == [1]


def test_a_client_gets_its_error_though_nobody_reads_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(TapApp):
        async def _route(self, call: Any) -> None:
            raise OverflowError("a defect")

    class Client:
        started = gone = False
        status = 0

        async def send(self, status: int, body: bytes) -> None:
            self.status = status

    gateway: Any = SimpleNamespace(gate=Gate())
    header: Any = SimpleNamespace(
        profile="greedy", created=10**9, model_digest="sha256:0", dtype="float32", log_id="x"
    )
    nothing: Any = None
    app = Failing(
        gateway=gateway, tokenizer=nothing, header=header, model_name="small", limits=nothing, max_active=1
    )
    client: Any = Client()
    monkeypatch.setattr(sys, "stderr", _Nobody())
    asyncio.run(app(client))
    assert client.status == Failure.INTERNAL_ERROR.status


def test_a_standard_error_that_is_closed_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        tell_operator("anything")


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
