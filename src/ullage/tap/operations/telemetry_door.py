"""Asks the server for its telemetry at fixed times, and lets out what was declared."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pydantic_core

from ullage.tap.failures import Failure, LogUnavailableError, UpstreamError
from ullage.tap.gate import Gate
from ullage.tap.operations.telemetry import Sampler
from ullage.tap.tell import tell_operator
from ullage.tap.upstream.connections import Traffic, Upstream

_MAX_BODY: Final = 64 << 10


class TelemetryDoor:
    """Writes a line of JSON a sample to `out`. What the server does not bring in time stays as it was.

    A wire journal that cannot be written closes `gate`, as it does over a client's request. `clock` gives
    seconds since 1970, and `sleep` waits so many of them.
    """

    def __init__(
        self,
        sampler: Sampler,
        upstream: Upstream,
        gate: Gate,
        out: Path,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.traffic = Traffic()
        self.samples = 0
        self._sampler = sampler
        self._upstream = upstream
        self._gate = gate
        self._out = out
        self._clock = clock
        self._sleep = sleep

    @property
    def bits(self) -> float:
        """Bits that have left at most."""
        return self.samples * self._sampler.declaration.bits_per_sample

    async def run(self) -> None:
        """Until it is cancelled; samples are at multiples of the interval since 1970."""
        interval = self._sampler.declaration.interval_seconds
        last = 0.0
        while True:
            now = self._clock()
            # A sleep may end a moment early: one time never has two samples.
            due = max((now // interval + 1) * interval, last + interval)
            await self._sleep(max(0.0, due - now - interval / 2))
            values = await self._ask()
            await self._sleep(max(0.0, due - self._clock()))
            await asyncio.to_thread(self._write, int(due), self._sampler.sample(values))
            self.samples += 1
            last = due

    async def _ask(self) -> dict[str, object]:
        """The server's values, asked for half an interval before they leave."""
        patience = self._sampler.declaration.interval_seconds / 4
        try:
            async with (
                asyncio.timeout(patience),
                self._upstream.get(self._sampler.declaration.path, self.traffic) as response,
            ):
                body = await response.whole(_MAX_BODY)
                values = pydantic_core.from_json(body) if response.status == 200 else {}
        except (UpstreamError, TimeoutError, ValueError):
            return {}
        except LogUnavailableError as error:  # the wire journal's; the supervisor opens the gate again
            self._gate.trip(Failure.LOG_UNAVAILABLE, str(error))
            return {}
        return values if isinstance(values, dict) else {}

    def _write(self, due: int, sample: dict[str, str | int]) -> None:
        line = json.dumps({"time": due, **sample}, separators=(",", ":"))
        try:
            with self._out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            tell_operator(f"telemetry cannot be written to {self._out}: {error.strerror}")
