"""Wall-clock of real training over capped links, step by step: what a measured run is compared with.

The strategies assume the best for the adversary: one hub, exchange hidden behind compute. A plain
implementation has neither, so its time is a sum over n workers that send at `rate` bytes/s each:

    synchronous, DiLoCo:   S t_c + (S / H) (passages * bytes / (rate * payload share) + delay)

with 2 (n-1)/n passages for a ring all-reduce (Patarasuk and Yuan 2009) and n-1 for an all-gather of
compressed updates. One merge at the end is H = S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PAYLOAD_SHARE = 1448 / 1514
"""Payload of a full Ethernet frame: 1,448 of 1,514 bytes behind Ethernet, IPv4 and TCP with timestamps."""


def ring_passages(workers: int) -> float:
    """How often a worker sends the whole vector in a ring all-reduce."""
    return 2 * (workers - 1) / workers


def gather_passages(workers: int) -> float:
    """How often a worker sends an update's size in a ring all-gather."""
    return float(workers - 1)


@dataclass(frozen=True)
class Job:
    """A training job as the links see it."""

    workers: int
    steps: int
    interval: int  # inner steps between exchanges, H
    update_bytes: float  # what one worker contributes to one exchange
    gathered: bool = False  # all-gather of compressed updates instead of a ring all-reduce

    @property
    def exchanges(self) -> int:
        """How often the workers exchange updates in the whole job."""
        return math.ceil(self.steps / self.interval)

    @property
    def sent_bytes(self) -> float:
        """Payload that each worker sends in the whole job."""
        passages = gather_passages(self.workers) if self.gathered else ring_passages(self.workers)
        return self.exchanges * passages * self.update_bytes


def job_seconds(job: Job, compute_seconds: float, rate: float, delay: float = 0.0) -> float:
    """The sum above. `compute_seconds` is one inner step, `delay` what an exchange costs without bytes."""
    return job.steps * compute_seconds + job.sent_bytes / (rate * PAYLOAD_SHARE) + job.exchanges * delay
