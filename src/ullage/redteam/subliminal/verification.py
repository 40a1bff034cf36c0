"""What verification does to a steered teacher: the alarm, the codelength, and enforcement.

The verifier audits the very answers that students were trained on, numbers or not, under a calibration of
other runs. Enforcement derives the reference's own transcript with a server's answer as the draft, as the
enforcer beside a tap does (`ullage.enforce.rederive`): the draft decides how long that takes and nothing
else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bounds.statistics import upper_bound
from ullage.enforce.rederive import rederive
from ullage.enforce.reference import ChunkedReference
from ullage.model.builtin import builtin_path
from ullage.model.reference import Reference
from ullage.redteam.subliminal.intervals import CONFIDENCE
from ullage.redteam.subliminal.transmission import Repetition
from ullage.redteam.tokens.calibration import GameCalibration
from ullage.redteam.tokens.game import Size, observe
from ullage.redteam.tokens.pricing import ALPHA, Priced
from ullage.server.chooser import DEFAULT_PROFILE
from ullage.server.rows import Row


@dataclass(frozen=True)
class Plan:
    """Size of the calibration, messages of each repetition and server that are audited, orders of these
    in which the alarm watches, and messages that are enforced."""

    calibration: Size
    audited: int
    streams: int
    enforced: int


@dataclass(frozen=True)
class Audited:
    """One server's traffic as the audit saw it, all repetitions together; a repetition is a server run of
    its own.

    `detection`: tokens until the alarm, for each order of each repetition's messages, inf for never.
    """

    server: str
    tokens: int
    mismatches: int
    codelength_bits: float
    detection: NDArray[np.float64]
    longest: int
    """Tokens of the shortest stream: the alarm was silent for at least so long where it was silent."""

    @property
    def codelength_per_token(self) -> float:
        return self.codelength_bits / self.tokens

    def quantile(self, share: float) -> float:
        """Tokens until the alarm in that share of the orders."""
        ordered = np.sort(self.detection)  # not interpolated: inf stays inf
        return float(ordered[math.ceil(share * len(ordered)) - 1])

    def to_dict(self) -> dict[str, object]:
        return {
            "server": self.server,
            "tokens": self.tokens,
            "mismatch_rate": self.mismatches / self.tokens,
            "codelength_bits_per_token": self.codelength_per_token,
            "streams": len(self.detection),
            "alarms": int(np.isfinite(self.detection).sum()),
            "tokens_a_stream_at_least": self.longest,
            "tokens_to_alarm": {
                name: self.quantile(share) if math.isfinite(self.quantile(share)) else None
                for name, share in (("median", 0.5), ("p95", 0.95))
            },
        }


@dataclass(frozen=True)
class Enforced:
    """Transcripts that came out with one server's answers as drafts, held against those that came out with
    the honest server's."""

    server: str
    messages: int
    tokens: int
    replaced: int
    """Tokens of the drafts that were not released."""
    different: int
    """Messages whose released transcript is not the one that the honest server's draft led to."""

    @property
    def different_at_most(self) -> float:
        """One-sided Clopper–Pearson limit of the share of messages that differ."""
        return upper_bound(self.different, self.messages, CONFIDENCE)

    def to_dict(self) -> dict[str, object]:
        return {
            "server": self.server,
            "messages": self.messages,
            "tokens": self.tokens,
            "replaced_share": self.replaced / self.tokens,
            "different": self.different,
            "different_at_most": self.different_at_most,
            "confidence": CONFIDENCE,
        }


@dataclass(frozen=True)
class Verification:
    """Both defences against every server."""

    audited: tuple[Audited, ...]
    enforced: tuple[Enforced, ...]
    calibration: GameCalibration

    def to_dict(self) -> dict[str, object]:
        return {
            "alpha": ALPHA,
            "audit": [one.to_dict() for one in self.audited],
            "enforcement": [one.to_dict() for one in self.enforced],
            "calibration": self.calibration.to_dict(),
        }


def verify(
    reference: Reference,
    repetitions: Sequence[Repetition],
    plan: Plan,
    calibration: GameCalibration,
    progress: Callable[[str], None] = lambda text: None,
) -> Verification:
    """Audit all servers of all repetitions, enforce the first repetition's."""
    audited = []
    for server in repetitions[0].traffic:
        progress(f"audit: {server}")
        runs = [one.traffic[server][: plan.audited] for one in repetitions]
        audited.append(audit(reference, server, runs, calibration, plan.streams))
    progress("enforcement")
    limit = max(len(row.output_ids) for rows in repetitions[0].traffic.values() for row in rows)
    first = {server: rows[: plan.enforced] for server, rows in repetitions[0].traffic.items()}
    return Verification(tuple(audited), tuple(enforce(first, limit)), calibration)


def audit(
    reference: Reference,
    server: str,
    runs: Sequence[Sequence[Row]],
    calibration: GameCalibration,
    streams: int,
) -> Audited:
    """What the audit makes of a server's runs."""
    priced = [Priced.of(observe(reference, rows, bounds=())) for rows in runs]
    return Audited(
        server,
        tokens=sum(int(one.lengths.sum()) for one in priced),
        mismatches=sum(one.mismatches for one in priced),
        codelength_bits=sum(float(one.codelength(calibration.noise).sum()) for one in priced),
        detection=np.concatenate(
            [one.detection(calibration.noise, calibration.alarm_floor, streams) for one in priced]
        ),
        longest=min(int(one.lengths.sum()) for one in priced),
    )


def enforce(traffic: dict[str, list[Row]], limit: int) -> list[Enforced]:
    """Release the reference's own transcripts, of at most `limit` tokens, with each server's answers as
    drafts; the first is the honest one."""
    reference = ChunkedReference.load(builtin_path())
    released = {
        server: [_released(reference, row, limit) for row in rows] for server, rows in traffic.items()
    }
    honest = next(iter(released.values()))
    found = []
    for server, rows in traffic.items():
        pairs = list(zip(rows, released[server], strict=True))
        found.append(
            Enforced(
                server,
                messages=len(rows),
                tokens=sum(len(row.output_ids) for row in rows),
                replaced=sum(
                    len(row.output_ids) - sum(a == b for a, b in zip(row.output_ids, ids, strict=False))
                    for row, ids in pairs
                ),
                different=sum(a != b for a, b in zip(released[server], honest, strict=True)),
            )
        )
    return found


def _released(reference: ChunkedReference, row: Row, limit: int) -> tuple[int, ...]:
    return rederive(
        reference, DEFAULT_PROFILE, row.prompt_ids, seed=row.seed, parameters=row.parameters,
        max_tokens=limit, draft=row.output_ids,
    ).ids  # fmt: skip
