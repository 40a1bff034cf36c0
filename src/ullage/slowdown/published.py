"""The source's arithmetic, done again: what its prose says, and what its own figures give."""

from __future__ import annotations

from dataclasses import dataclass

from ullage.slowdown.constraints import INFINIBAND, TAP
from ullage.slowdown.critical_batch import critical_batch, minimal_steps, run_seconds

HOUR, DAY, MONTH = 3_600.0, 86_400.0, 30 * 86_400.0
FLEET_RACKS = 30_000  # 3 million H100-equivalents in racks of 100
FLEET_TOKENS_A_MONTH = 480e12
BYTES_A_TOKEN = 4
PROVIDER_TOKENS_A_MONTH = 100e12
PROVIDER_BYTES_A_TOKEN = 2  # 17 bits


def sync_seconds(size: float, rate: float) -> float:
    """Seconds to move `size` bytes at `rate` bytes/s."""
    return size / rate


def largest_expert(period: float, rate: float = TAP) -> float:
    """Bytes that leave between two wipes."""
    return period * rate


def rack_tokens_a_second() -> float:
    """Output tokens a second of one rack, of the published fleet's."""
    return FLEET_TOKENS_A_MONTH / MONTH / FLEET_RACKS


def rack_bytes_a_second() -> float:
    """The same in bytes of text."""
    return rack_tokens_a_second() * BYTES_A_TOKEN


def covert_bytes_a_day(fraction: float, racks: int = 1, rate: float = TAP) -> float:
    """Hidden bytes a day at that share of a tap's rate."""
    return fraction * rate * DAY * racks


@dataclass(frozen=True)
class Figure:
    """One published figure: what the prose says, what the arithmetic gives, and in which unit."""

    what: str
    prose: str
    value: float
    unit: str
    agrees: bool


def figures() -> tuple[Figure, ...]:
    """Every figure of the source that this model rests on."""
    rollout_bits = 17 * 10_000 * 1e-4
    learner, dark = 0.2, 0.05
    return (
        Figure("10 GB gradient over 1 KB/s", "6 months", sync_seconds(10e9, 1e3) / DAY, "days", False),
        Figure("10 GB gradient between racks, uncut", "–", sync_seconds(10e9, INFINIBAND), "s", True),
        Figure("3 GB expert over 100 KB/s", "8.3 h", sync_seconds(3e9, TAP) / HOUR, "h", True),
        Figure("largest expert in a one-minute wipe", "~5 MB", largest_expert(60) / 1e6, "MB", False),
        Figure("inference flow through a rack", "20 KB/s", rack_bytes_a_second() / 1e3, "KB/s", False),
        Figure("tokens of a rack", "12 billion/s", rack_tokens_a_second(), "tokens/s", False),
        Figure("unexplained 1 % of 100 KB/s", "86 MB/day", covert_bytes_a_day(0.01) / 1e6, "MB/day", True),
        Figure("unexplained 0.5 %", "43 MB/day", covert_bytes_a_day(0.005) / 1e6, "MB/day", True),
        Figure("unexplained 0.01 %", "0.86 MB/day", covert_bytes_a_day(1e-4) / 1e6, "MB/day", True),
        Figure(
            "the same over 30,000 racks",
            "26 GB/day",
            covert_bytes_a_day(1e-4, FLEET_RACKS) / 1e9,
            "GB/day",
            True,
        ),
        Figure(
            "one provider's output",
            "7 TB/day",
            PROVIDER_TOKENS_A_MONTH * PROVIDER_BYTES_A_TOKEN / 30 / 1e12,
            "TB/day",
            True,
        ),
        Figure("an expert trained alone", "4 days", 10_000 / 100 / 24, "days", True),
        Figure("a rollout of 10,000 tokens at 0.01 %", "17 bits", rollout_bits, "bits", True),
        Figure("policy patch of a 7 B step", "130 times smaller", 14e9 / 108e6, "factor", True),
        Figure("critical batch at 15 T tokens", "118 M tokens", critical_batch() / 1e6, "M tokens", True),
        Figure("steps that no batch gets below", "–", minimal_steps(), "steps", True),
        Figure("15 T tokens at B_crit, 2 s a step", "6 days", run_seconds(1.0) / DAY, "days", True),
        Figure(
            "RL, learner's share 0.2, dark 5 %",
            "4 times",
            1 / (dark + dark * (1 - learner) / learner),
            "factor",
            True,
        ),
    )
