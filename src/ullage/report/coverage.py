"""What a report does not cover: claims not given, without a figure, or that a reader may not rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ullage.claims import Claim, Evidence, Reading

EXPECTED = (
    ("token.mismatch_rate", "whether the answers are the declared model's", "ullage audit LOG"),
    (
        "token.covert_fraction",
        "how much the choice of tokens may carry",
        "ullage audit LOG --calibration FILE",
    ),
    ("prompt.outside_fraction", "where prompts came from", "ullage audit LOG"),
    ("log.integrity", "that the log is whole and signed", "ullage log verify LOG"),
    ("log.coverage", "that every request has its record", "ullage log verify LOG"),
    ("channel.residual", "what length, timing, order and errors may carry", "ullage residual LOG"),
    ("wire.unexplained_fraction", "bytes that no record explains", "ullage wire meter"),
    ("wire.egress_cap", "bytes a second that can leave", "ullage wire meter"),
    ("wire.other_ways_out", "ways beside the tap", "ullage wire check"),
    ("memory.resident_fraction", "what memory holds while serving", "ullage memory hold"),
    ("memory.erased_fraction", "what a wipe overwrites", "ullage memory erase"),
    ("memory.wipe_cycle", "how often state is lost", "ullage memory cycle"),
    ("compute.accounted_fraction", "what the processors do", "ullage work account"),
    ("total.covert_bits_per_day", "every way out added up", "ullage total"),
)
ALWAYS = (
    "Side channels of power, radio, heat and sound.",
    "A declared model that is itself backdoored, or that a prompt asks to say the payload.",
    "Traffic on cables that nobody knows of, and machines beside the declared ones.",
)
"""What no claim of any kind speaks of."""


@dataclass(frozen=True)
class Gap:
    """One thing that a reader cannot learn here, why, and which command would tell."""

    name: str
    what: str
    reason: str
    command: str


def gaps(claims: Sequence[Claim], reading: Reading) -> tuple[Gap, ...]:
    """The expected claims that say nothing to this reader, in a fixed order."""
    found = []
    for name, what, command in EXPECTED:
        own = [claim for claim in claims if claim.name == name]
        reason = _reason(own, reading)
        if reason:
            found.append(Gap(name, what, reason, command))
    return tuple(found)


def _reason(own: Sequence[Claim], reading: Reading) -> str:
    """Why this reader learns nothing of some subject; nothing where every subject has a claim that speaks."""
    if not own:
        return "not measured"
    spoken = {claim.subject for claim in own if _speaks(claim.read_as(reading))}
    silent = [claim for claim in own if claim.subject not in spoken]
    if not silent:
        return ""
    subjects = {claim.subject for claim in own}
    lacking = {claim.subject for claim in silent}
    of = f", for {len(lacking)} of {len(subjects)} subjects" if len(lacking) < len(subjects) else ""
    if any(_speaks(claim) for claim in silent):
        barred = sorted(
            {trust.value for claim in silent for trust in claim.trusts if not reading.allows(trust)}
        )
        return f"rests on {', '.join(barred)}{of}"
    return f"looked at, and not covered{of}"


def _speaks(claim: Claim) -> bool:
    return claim.evidence is not Evidence.NOT_COVERED and not claim.unbounded
