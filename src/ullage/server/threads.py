"""How many CPU threads a decoding step gets, found by measuring.

Two threads halve a step of 32 rows on an idle machine, and make it several times slower when a tap,
clients and other processes keep the cores busy: every product ends with one thread waiting for the other
to be scheduled. The choice changes logits by rounding at most, as the batch's size does; for the built-in
model's shapes they were bitwise equal.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

import torch

_TRIAL_STEPS = 3
_SHORTEST_INTERVAL = 48
_LONGEST_INTERVAL = 1536
_CLEARLY_FASTER = 0.9
_HOPELESS = 1.5


@dataclass
class _Choice:
    """What was found for batches of about one size."""

    threads: int
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=7))
    trial: list[float] | None = None
    interval: int = _SHORTEST_INTERVAL
    countdown: int = 8


class ThreadTuner:
    """Runs most steps with the number of threads that was faster, and now and then tries the other.

    A lost trial doubles the time to the next one and ends at its first hopeless step.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._choices: dict[int, _Choice] = {}

    def threads(self, rows: int) -> int:
        """For the step to come, of a batch of `rows`."""
        choice = self._choice(rows)
        return choice.threads if choice.trial is None else self._other(choice)

    def apply(self, rows: int) -> None:
        """Set torch's threads for the step to come; call in the thread that computes."""
        wanted = self.threads(rows)
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)

    def record(self, rows: int, seconds: float) -> None:
        """How long the step took that `threads` spoke of."""
        choice = self._choice(rows)
        if self._most == 1:
            return
        if choice.trial is None:
            choice.recent.append(seconds)
            choice.countdown -= 1
            if choice.countdown <= 0:
                choice.trial = []
            return
        choice.trial.append(seconds)
        usual = statistics.median(choice.recent)
        if seconds > _HOPELESS * usual or len(choice.trial) == _TRIAL_STEPS:
            self._conclude(choice, usual)

    def _conclude(self, choice: _Choice, usual: float) -> None:
        assert choice.trial  # noqa: S101 - a trial ends with a step
        full = len(choice.trial) == _TRIAL_STEPS
        if full and statistics.median(choice.trial) < _CLEARLY_FASTER * usual:
            choice.threads = self._other(choice)
            choice.recent.clear()
            choice.recent.extend(choice.trial)
            choice.interval = _SHORTEST_INTERVAL
        else:
            choice.interval = min(2 * choice.interval, _LONGEST_INTERVAL)
        choice.trial, choice.countdown = None, choice.interval

    def _choice(self, rows: int) -> _Choice:
        return self._choices.setdefault(rows.bit_length(), _Choice(1))

    def _other(self, choice: _Choice) -> int:
        return self._most if choice.threads == 1 else 1
