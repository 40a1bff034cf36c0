"""What runs beside the requests for as long as the tap does: watches, telemetry, the operator's address.

None of them ends on its own. One that does is missing from then on, silently, and what it watched or counted
is not watched or counted any more: so the operator is told, and nothing is released until a new start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ullage.tap.failures import Failure
from ullage.tap.gate import Gate


class Beside:
    """Tasks that have to run. Nobody clears the reason for which one of them closes the gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until `stop`; `name` is for the operator, as "the watch of the log"."""
        self._tasks.append(asyncio.ensure_future(self._watched(name, work)))

    async def stop(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watched(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        why = "it came to an end"
        try:
            await work
        except Exception as error:  # whatever it is, it must not pass unseen
            why = f"{type(error).__name__}: {error}"
        self._gate.trip(
            Failure.INTERNAL_ERROR, f"{name} failed ({why}); nothing is released, start the tap again"
        )
