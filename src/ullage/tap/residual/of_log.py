"""`channel.residual` of the traffic that a log holds, given what its tap ran with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ullage.claims import Claim
from ullage.enforce.accounting import Ledger, Tally
from ullage.errors import IntegrityError, UndecidedError
from ullage.log.claims import log_claims
from ullage.log.reader import LogReader
from ullage.log.record import Record
from ullage.tap.pacing.grid import Pace
from ullage.tap.pacing.ledger import Allowance
from ullage.tap.residual.channels import (
    Channel,
    Observed,
    allowed_channels,
    enforced_channels,
    observed_in,
    open_channels,
    paced_channels,
    residual_claim,
    share_of_message,
)

_DAY_NS = 86_400 * 1_000_000_000


@dataclass(frozen=True)
class ResidualOfLog:
    """What a log's traffic let out beside its tokens.

    `allowed` is the most that so many messages in so many days may let out whatever the server does; None
    for a tap without slots, and for one that enforces, whose late slots have a budget of their own.
    """

    observed: Observed
    channels: tuple[Channel, ...]
    allowed: Channel | None
    share: float  # of what a message of these lengths could carry
    claim: Claim


def residual_of_log(
    log: LogReader,
    pace: Pace | None,
    allowance: Allowance,
    *,
    patience: float,
    asked: int = 0,
    vocabulary: int = 1 << 17,
) -> ResidualOfLog:
    """Count what every record of a log says of its releases.

    `pace` is what the tap ran with, None without slots; `patience` the seconds that its server had for an
    answer, `asked` the messages that clients sent, refused ones included. `vocabulary` is the model's size.
    Raises IntegrityError for a log that does not hold, UndecidedError where records cannot be read or there
    is none, UsageError.
    """
    found = log.verify()
    if not found.integrity or found.header is None:
        raise IntegrityError(f"{log.directory} does not hold; `ullage log verify` says where.")
    if found.unread:
        raise UndecidedError(
            f"{found.unread} records of {log.directory} cannot be read, and each may have been late: "
            "have all of them opened (`ullage log open --all`)."
        )
    records = [record for record in log.records() if record.close is not None]
    if not records:
        raise UndecidedError(f"{log.directory} has no closed record: there is nothing to say of its times.")
    observed = observed_in(records, pace, asked)
    enforced = found.header.reference_digest is not None
    lateness = Ledger.of(record.close.detail for record in records if record.close is not None)
    allowed = None
    if pace is None:
        channels = open_channels(observed, patience)
    elif enforced and left_without_slots(one.close.detail for one in records if one.close is not None):
        pace, channels = None, open_channels(observed_in(records, None, asked), patience)
    elif enforced:
        channels = enforced_channels(observed, lateness)
    else:
        channels = paced_channels(observed, pace)
        groups = observed.opportunities / observed.messages
        days = max(1.0, (_last(records) - _first(records)) / _DAY_NS)
        allowed = allowed_channels(observed.messages, groups, allowance, pace, days)
    tokens = sum(len(record.output_ids) for record in records) / observed.messages
    integrity, _ = log_claims(found)
    claim = residual_claim(
        channels,
        observed,
        paced=pace is not None,
        subject=integrity.subject,
        window=integrity.window,
        inputs=integrity.inputs,
        settings=_settings(pace, patience),
    )
    share = share_of_message(claim.value or 0.0, max(tokens, 1.0), vocabulary)
    return ResidualOfLog(observed, tuple(channels), allowed, share, claim)


def left_without_slots(details: Iterable[str]) -> bool:
    """Whether some of the reference's tokens left at once, as the tap's records say, whatever is said now."""
    tallies = map(Tally.parse, details)
    return any(tally is not None and not tally.slots and tally.drafted + tally.alone > 0 for tally in tallies)


def _first(records: Iterable[Record]) -> int:
    return min(record.open.time_received for record in records)


def _last(records: Iterable[Record]) -> int:
    return max(record.close.time_closed for record in records if record.close is not None)


def _settings(pace: Pace | None, patience: float) -> str:
    if pace is None:
        return f"the tap gave its server at most {patience:g} s for an answer, as its operator says"
    return (
        f"the tap released in slots of {pace.slot * 1000:g} ms and {pace.tokens} tokens, as its operator "
        "says: the log does not"
    )
