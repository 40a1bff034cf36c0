"""The tap's own figures for Prometheus: quantised, taken at fixed times, their bits counted.

What a server does moves these figures, so they are a door like any other: each is a `QuantisedCounter`, what
is left of the day's covert budget one of `STEPS` + 1 steps, and a snapshot is taken every `INTERVAL` seconds,
however often somebody reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ullage.tap.failures import Failure
from ullage.tap.operations.telemetry import Declaration, Enumeration, QuantisedCounter, Sampler
from ullage.tap.pacing.grid import LATE_STEPS
from ullage.tap.pacing.ledger import FAILED, late_kind
from ullage.tap.residual.capacity import STEPS

INTERVAL: Final = 60
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_HELP: Final[dict[str, tuple[int, int, str]]] = {
    # name: quantum, levels, help. The levels let a rack's full load through without falling behind.
    "requests_total": (100, 4096, "requests that had a counter"),
    "failed_total": (10, 64, "requests that the server behind the tap failed"),
    "prompt_tokens_total": (10_000, 256, "tokens of prompts"),
    "output_tokens_total": (10_000, 256, "tokens of outputs"),
    "noncanonical_outputs_total": (10, 64, "outputs whose token ids are not the tokenizer's"),
    "link_sent_bytes_total": (1_000_000, 64, "HTTP bytes sent to the server"),
    "link_received_bytes_total": (1_000_000, 64, "HTTP bytes received of the server"),
    "client_sent_bytes_total": (1_000_000, 256, "body bytes released to clients"),
    "tap_delays_total": (
        10,
        64,
        "exceptions beyond the server's: by the tap, its cap, or a client that left",
    ),
    "telemetry_samples_total": (10, 2, "samples of telemetry let out"),
    "monitor_payload_bits_total": (1000, 16, "payload bits that the monitor found in answers"),
    "monitor_skipped_total": (10, 8, "answers that the monitor did not read"),
    "monitor_alarms_total": (1, 2, "clients that the monitor raised an alarm for"),
}
_REASONS: Final = (
    Failure.LOG_UNAVAILABLE,
    Failure.ENFORCER_UNAVAILABLE,
    Failure.METER_UNAVAILABLE,
    Failure.CLOCK_UNSURE,
    Failure.CHANNEL_EXHAUSTED,
)


def _fields() -> list[QuantisedCounter]:
    plain = [(name, quantum, levels) for name, (quantum, levels, _) in _HELP.items()]
    late = [(f"late_{_word(kind)}_total", 10, 64) for kind in _kinds()]
    alarms = [(f"alarm_{reason.code}_total", 1, 2) for reason in _REASONS]
    return [
        QuantisedCounter(kind="counter", name=name, quantum=quantum, levels=levels)
        for name, quantum, levels in (*plain, *late, *alarms)
    ]


def _kinds() -> list[str]:
    return [*(late_kind(step) for step in range(1, LATE_STEPS + 1)), FAILED]


def _word(kind: str) -> str:
    return kind.replace("-", "_").removeprefix("late_")


_LEFT: Final = Enumeration(
    kind="enumeration", name="covert_left", values=tuple(f"step_{step}" for step in range(STEPS + 1))
)
DECLARATION: Final = Declaration(
    version=1, interval_seconds=INTERVAL, bits_per_day_budget=200_000, field=(*_fields(), _LEFT)
)


@dataclass(frozen=True)
class Left:
    """The day's covert budget, bits, and how many of its `STEPS` are left."""

    budget: float
    step: Callable[[], int]


class MetricsPage:
    """The page as of the last fixed time. `read` gives the true figures by the names above; without `left`
    no covert budget is declared, and the page has no figures of it."""

    def __init__(
        self,
        read: Callable[[], Mapping[str, float]],
        clock: Callable[[], float],
        left: Left | None = None,
    ) -> None:
        self._read = read
        self._left = left
        self._clock = clock
        self._sampler = Sampler(DECLARATION)
        self._tick = -1
        self._page = b""
        self.snapshots = 0

    @property
    def bits(self) -> float:
        """Bits that these pages have carried at most."""
        return self.snapshots * DECLARATION.bits_per_sample

    def page(self) -> bytes:
        """The exposition in Prometheus' text format."""
        tick = int(self._clock() // INTERVAL)
        if tick != self._tick:
            self._tick = tick
            self.snapshots += 1
            values: dict[str, object] = dict(self._read())
            if self._left is not None:
                values[_LEFT.name] = f"step_{self._left.step()}"
            sample = self._sampler.sample(values)
            step = int(str(sample.pop(_LEFT.name)).removeprefix("step_"))
            self._page = _exposition(sample) + self._budget(step)
        return self._page

    def _budget(self, step: int) -> bytes:
        if self._left is None:
            return b""
        budget = self._left.budget
        return _gauge(
            "covert_budget_bits", budget, "bits a day that tokens and releases may carry in secret"
        ) + _gauge(
            "covert_left_bits", budget * step / STEPS, "what today's answers have left of it, at least"
        )


def late_counts(exceptions: Mapping[str, int]) -> dict[str, float]:
    """A ledger's exceptions under the names of the page."""
    return {f"late_{_word(kind)}_total": exceptions.get(kind, 0) for kind in _kinds()}


def alarm_counts(alarms: Mapping[Failure, int]) -> dict[str, float]:
    """A gate's alarms under the names of the page."""
    return {f"alarm_{reason.code}_total": alarms.get(reason, 0) for reason in _REASONS}


def _gauge(name: str, value: float, described: str) -> bytes:
    head = f"# HELP ullage_tap_{name} {described}\n# TYPE ullage_tap_{name} gauge\n"
    return f"{head}ullage_tap_{name} {value:.12g}\n".encode()


def _exposition(sample: Mapping[str, str | int]) -> bytes:
    lines = []
    for name, value in sample.items():
        described = _HELP.get(name, (0, 0, name.removesuffix("_total").replace("_", " ")))[2]
        lines += [
            f"# HELP ullage_tap_{name} {described}",
            f"# TYPE ullage_tap_{name} counter",
            f"ullage_tap_{name} {value}",
        ]
    return ("\n".join(lines) + "\n").encode()
