"""Stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Releases text up to the first stop string, and holds back what might become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self._longest = max(map(len, self._stops), default=0)

    def push(self, text: str) -> tuple[str, bool]:
        """The text that may go out now, and whether a stop string was met (its text does not go out)."""
        if not self._stops:
            return text, False
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            released, self._held = self._held[: min(found)], ""
            return released, True
        keep = self._undecided()
        released, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return released, False

    def finish(self) -> str:
        """What was held back; no stop string came after all."""
        released, self._held = self._held, ""
        return released

    def _undecided(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        for length in range(min(self._longest - 1, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
