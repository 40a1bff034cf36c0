"""What the times of an enforced log's releases can have carried, by the tap's own count of late slots."""

from __future__ import annotations

from collections.abc import Iterable

from ullage.audit.claims import Context
from ullage.claims import Bound, Claim, Evidence, Trust
from ullage.enforce.accounting import Ledger, Tally
from ullage.log.record import ClosePart

_CONFIDENCE_BITS = 10.0
_ASSUMPTIONS = (
    "The payload is independent of the seeds, and of how many tokens the reference's answers have.",
    "A client learns from times in which slot something came and no more: within a slot the tap's release "
    "does not depend on the server, with which it shares no processor.",
    "Messages that were refused or broke off are not among the slots that are counted after their last one.",
)


def lateness_claims(closes: Iterable[ClosePart], context: Context) -> tuple[Claim, ...]:
    """`channel.lateness_bits` and `enforce.replaced_share` of an enforced log; nothing for another one."""
    tallies = [tally for tally in (Tally.parse(close.detail) for close in closes) if tally is not None]
    if not tallies:
        return ()
    slotted = [tally for tally in tallies if tally.slots]
    ledger = Ledger(sum(tally.slots for tally in slotted), sum(tally.late for tally in slotted))
    counted = len(slotted) == len(tallies)
    slots = f"{ledger.late} slots late in {ledger.slots}"
    lateness = Claim(
        name="channel.lateness_bits",
        value=ledger.bits + _CONFIDENCE_BITS if counted else None,
        unbounded=not counted,
        unit="bits",
        bound=Bound.UPPER,
        confidence=1 - 2**-_CONFIDENCE_BITS if counted else None,
        evidence=Evidence.PROVEN if counted else Evidence.MEASURED,
        assumptions=_ASSUMPTIONS
        if counted
        else (
            "Answers left when they were checked, so that a server moves their times as it likes: --slot.",
        ),
        trusts=(Trust.TAP,),
        subject=context.log_id,
        window=context.window,
        method="code for late slots, 10 bits for its confidence, v1",
        sample=f"{slots}; {len(slotted)} of {len(tallies)} answers in slots",
        inputs=dict(context.inputs),
    )
    return lateness, _replaced(tallies, context)


def _replaced(tallies: list[Tally], context: Context) -> Claim:
    """The share of drafts that was wrong: no client sees it, the auditor may want to know why."""
    drafted, replaced = sum(tally.drafted for tally in tallies), sum(tally.replaced for tally in tallies)
    return Claim(
        name="enforce.replaced_share",
        value=replaced / drafted if drafted else None,
        unit="share of drafted tokens",
        bound=Bound.UPPER,
        evidence=Evidence.MEASURED if drafted else Evidence.NOT_COVERED,
        trusts=(Trust.TAP,),
        subject=context.log_id,
        window=context.window,
        method="the tap's count, v1",
        sample=f"{replaced} of {drafted} drafts, {sum(tally.alone for tally in tallies)} tokens without any",
        inputs=dict(context.inputs),
    )
