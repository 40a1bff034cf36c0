"""What watches over a tap fails closed: a watch that has died does not leave the gate as it was."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ullage.tap.failures import Failure
from ullage.tap.gate import Gate
from ullage.tap.supervisor import Supervisor


def test_a_watch_that_fails_closes_the_gate_for_good() -> None:
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
    with pytest.raises(OverflowError):
        asyncio.run(asyncio.wait_for(supervisor.run(), 10))
    assert gate.reason is Failure.LOG_UNAVAILABLE
