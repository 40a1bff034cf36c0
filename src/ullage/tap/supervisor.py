"""Looks after what the gate waits for: the clock, the log, the meter, the allowance.

It recovers without a restart.
"""

from __future__ import annotations

import asyncio
from typing import Final

from ullage.log.journal.append import LOCK
from ullage.log.journal.segments import SEALED_FOLDER
from ullage.log.writer import LogWriter
from ullage.network.sign_of_life import LifeWatch
from ullage.tap.clock import ClockWatch
from ullage.tap.failures import Failure
from ullage.tap.gate import Gate
from ullage.tap.pacing.schedule import Pacer
from ullage.tap.recorder import Recorder

_LOOK_SECONDS: Final = 0.2


class Supervisor:
    """Trips the gate and clears it again. A log that failed mends itself (`ullage.log.writer`)."""

    def __init__(
        self,
        gate: Gate,
        recorder: Recorder,
        pacer: Pacer | None,
        clock: ClockWatch | None = None,
        meter: LifeWatch | None = None,
    ) -> None:
        """A tap that rests on a meter releases nothing before it has seen its sign of life."""
        self._meter = meter
        self._gate = gate
        self._recorder = recorder
        self._pacer = pacer
        self._clock = clock or ClockWatch()
        self._identity = _identity_of(recorder.log)

    async def run(self) -> None:
        """Until it is cancelled. If it cannot go on, `ullage.tap.beside` closes the gate for good."""
        while True:
            self.look_at_clock()
            self._look_at_log()
            self.look_at_meter()
            if self._pacer is not None and self._pacer.ledger.open:
                self._gate.clear(Failure.CHANNEL_EXHAUSTED)
            await asyncio.sleep(_LOOK_SECONDS)

    def look_at_clock(self) -> None:
        """Trip the gate when the clock has jumped, clear it when it has settled."""
        if self._clock.jumped():
            self._gate.trip(
                Failure.CLOCK_UNSURE, "the clock has jumped; nothing is released until it is steady"
            )
        else:
            self._gate.clear(Failure.CLOCK_UNSURE)

    def look_at_meter(self) -> None:
        """Trip the gate while the meter of the server's link gives no sign of life."""
        if self._meter is None:
            return
        if self._meter.alive():
            self._gate.clear(Failure.METER_UNAVAILABLE)
        else:
            self._gate.trip(
                Failure.METER_UNAVAILABLE, "the meter of the server's link is silent; nothing is released"
            )

    def _look_at_log(self) -> None:
        """Trip the gate while the log cannot be written, or its files are not the ones written any more.

        It opens when nobody holds a record of before: those were closed as aborted.
        """
        failure = self._recorder.log.failure
        if failure is not None:
            self._gate.trip(Failure.LOG_UNAVAILABLE, str(failure))
        elif _identity_of(self._recorder.log) != self._identity:
            self._gate.trip(Failure.LOG_UNAVAILABLE, "the log's files are gone; put them back")
        elif self._gate.empty:
            self._gate.clear(Failure.LOG_UNAVAILABLE)


def _identity_of(log: object) -> tuple[int, int] | None:
    """Which file the path of the log's lock names now; None when there is none."""
    if not isinstance(log, LogWriter):
        return None
    try:
        status = (log.directory / SEALED_FOLDER / LOCK).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
