"""The deviation alarm over one audited window: did the server's choices leave the calibrated noise?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bounds.alarm import (
    conformal_threshold,
    expected_leak_before_alarm,
    first_crossing,
    log_e_process,
    log_supremum,
    mismatch_limits,
)
from ullage.audit.bundle.evidence import AuditedRecord, TokenScores
from ullage.audit.calibration.file import Calibration
from ullage.errors import UndecidedError

DEFAULT_ALPHA = 1e-4


@dataclass(frozen=True)
class Alarm:
    """What the e-process over all audited tokens, in the order of records, came to."""

    alpha: float
    kappa: float
    tokens: int
    log_supremum: float
    tokens_to_detection: int
    """Audited tokens seen when it fired; 0 if it did not."""
    first_record: int | None
    """The record in which it fired."""
    streams: int
    streams_above: int | None
    """Records above the distribution-free limit; None when the calibration has too few streams for one."""
    streams_limit: str
    """The limit, or why there is none."""
    expected_leak: float
    """Bits that leave before an alarm, of a server that fills whole messages with payload."""
    audited_share: float
    log_e: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)
    """(T,): ln E after each of these tokens."""

    @property
    def fired(self) -> bool:
        return self.tokens_to_detection > 0

    def sentence(self) -> str:
        """For the reasons of a verdict."""
        return (
            f"The deviation alarm fired in record {self.first_record}, after {self.tokens_to_detection} "
            f"audited tokens: the server's choices are not the calibrated noise (false alarms at most "
            f"{self.alpha:g} if honest flips stay within {self.kappa:g} times those of the noisiest "
            "calibrated session)."
        )


def watch(
    records: Sequence[AuditedRecord],
    calibration: Calibration,
    *,
    alpha: float,
    audited_share: float,
    bits_per_message: float,
) -> Alarm:
    """Run the alarm over the audited records, each once, in the order given."""
    kappa, floor = float(calibration.alarm_kappa), float(calibration.alarm_floor)
    scored = [record for record in records if record.scores is not None and len(record.scores.token)]
    streams = [_evidence([record.scores], kappa, floor) for record in scored if record.scores]
    log_e = _evidence([record.scores for record in scored if record.scores], kappa, floor)
    crossing = int(first_crossing(log_e, alpha)) if len(log_e) else 0
    first = None
    if crossing:
        ends = np.cumsum([record.output_tokens for record in scored])
        first = scored[int(np.searchsorted(ends, crossing))].number
    above, limit = None, ""
    try:
        threshold = conformal_threshold(calibration.suprema, alpha)
        above = sum(float(log_supremum(stream)) > threshold for stream in streams)
        limit = f"{threshold:.4g}"
    except UndecidedError as error:
        limit = str(error)
    return Alarm(
        alpha=alpha,
        kappa=kappa,
        tokens=len(log_e),
        log_supremum=float(log_supremum(log_e)) if len(log_e) else 0.0,
        tokens_to_detection=crossing,
        first_record=first,
        streams=len(streams),
        streams_above=above,
        streams_limit=limit,
        expected_leak=expected_leak_before_alarm(bits_per_message, audited_share, 1.0, 0.0)
        if audited_share
        else math.inf,
        audited_share=audited_share,
        log_e=log_e,
    )


def _evidence(scores: Sequence[TokenScores | None], kappa: float, floor: float) -> NDArray[np.float64]:
    used = [(one, one.codes) for one in scores if one is not None and one.codes is not None]
    if not used:
        return np.zeros(0)
    flip = np.concatenate([codes.flip for _, codes in used], axis=1)
    outside = np.concatenate([codes.outside for _, codes in used])
    mismatch = np.concatenate([one.mismatch for one, _ in used])
    return log_e_process(
        mismatch_limits(flip[0], kappa, floor), mismatch & ~outside, outside, floor, list(flip[1:])
    )
