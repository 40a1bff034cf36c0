"""Whether the enforcer answers: one that stands still breaks no connection, so somebody has to ask.

An alarm and no more: what waits for the enforcer is not released anyway, and goes on when it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ullage.tap.choices.enforcement import EnforcerClient
from ullage.tap.failures import Failure
from ullage.tap.gate import Gate
from ullage.tap.tell import tell_operator

# Together below the second in which an alarm is due.
_LOOK_SECONDS: Final = 0.25
_PATIENCE_SECONDS: Final = 0.6


class EnforcerWatch:
    """Greets the enforcer again and again; tells when it falls silent, and when it speaks again."""

    def __init__(
        self, client: EnforcerClient, gate: Gate, tell: Callable[[str], None] = tell_operator
    ) -> None:
        self._client = client
        self._gate = gate
        self._tell = tell
        self._silent = False

    async def run(self) -> None:
        """Until it is cancelled. If it cannot go on, `ullage.tap.beside` closes the gate for good."""
        while True:
            answers = await self._client.answers(_PATIENCE_SECONDS)
            if not answers and not self._silent:
                self._gate.alarms[Failure.ENFORCER_UNAVAILABLE] += 1
                self._tell("alarm: the enforcer does not answer; nothing is released meanwhile")
            elif answers and self._silent:
                self._tell("alarm: over, the enforcer answers again")
            self._silent = not answers
            await asyncio.sleep(_LOOK_SECONDS)
