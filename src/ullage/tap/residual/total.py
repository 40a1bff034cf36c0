"""What leaves a rack unaccounted for in a day, over every way out: a sum over claims, no measurement of its
own.

    total = token capacity x tokens a day + residual x messages a day + unexplained wire x bytes a day x 8
          + telemetry + agents' answers + verdicts + metrics

Errors add: the sum of upper bounds is an upper bound, and the chances that one of them is wrong add too, so n
claims at confidence c_i give a total at 1 - sum(1 - c_i). A claim that is missing makes the total not
covered: a way out that nobody measured is not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ullage.claims import Bound, Claim, Evidence, Trust, digest_of

NAME: Final = "total.covert_bits_per_day"
METHOD: Final = "total/1"
SECONDS_A_DAY: Final = 86_400


@dataclass(frozen=True)
class Traffic:
    """A rack's load in a day, which turns rates into totals. `wire_bytes` is the link's, out of the rack."""

    output_tokens: float
    messages: float
    wire_bytes: float

    @classmethod
    def of_rates(cls, tokens_a_second: float, tokens_a_message: float, bytes_a_second: float) -> Traffic:
        """From steady rates."""
        tokens = tokens_a_second * SECONDS_A_DAY
        return cls(tokens, tokens / tokens_a_message, bytes_a_second * SECONDS_A_DAY)


@dataclass(frozen=True)
class Doors:
    """Ways out whose bits a day are budgets, not measurements (None: not known); names are for the reader."""

    bits_per_day: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Term:
    """One way out."""

    name: str
    bits_per_day: float | None  # None: not covered
    claim: Claim | None = None


def terms(claims: Iterable[Claim], traffic: Traffic, doors: Doors) -> list[Term]:
    """The ways out of a rack with their bits a day. Of several claims of one name the largest counts."""
    factors = {
        "token.covert_capacity": traffic.output_tokens,
        "channel.residual": traffic.messages,
        "wire.unexplained_fraction": traffic.wire_bytes * 8,
    }
    found: dict[str, Claim] = {}
    for claim in claims:
        if claim.name in factors and claim.bound is Bound.UPPER:
            found[claim.name] = _larger(found.get(claim.name), claim)
    rows = []
    for name, factor in factors.items():
        one = found.get(name)
        value = None if one is None or one.evidence is Evidence.NOT_COVERED else one.value
        rows.append(Term(name, None if value is None else max(0.0, value) * factor, one))
    rows += [Term(name, bits) for name, bits in doors.bits_per_day.items()]
    return rows


def total_claim(claims: Iterable[Claim], traffic: Traffic, doors: Doors, racks: int = 1) -> Claim:
    """`total.covert_bits_per_day` of `racks` racks that are each like this one.

    Raises ValueError for fewer than one rack.
    """
    if racks < 1:
        raise ValueError("a fleet has at least one rack")
    listed = terms(claims, traffic, doors)
    missing = [term.name for term in listed if term.bits_per_day is None]
    used = [term.claim for term in listed if term.claim is not None]
    doubt = sum(1 - (claim.confidence or 1.0) for claim in used)
    confidence = 1 - doubt if doubt < 1 else None
    trusts = sorted({trust for claim in used for trust in claim.trusts} | {Trust.TAP, Trust.PERIMETER})
    parts = [
        f"{term.name}: {'not covered' if term.bits_per_day is None else f'{term.bits_per_day:.4g} bits/day'}"
        for term in listed
    ]
    value = (
        None if missing or confidence is None else sum(term.bits_per_day or 0.0 for term in listed) * racks
    )
    return Claim(
        name=NAME,
        value=value,
        unit="bits/day",
        bound=Bound.UPPER,
        confidence=confidence if value is not None else None,
        evidence=Evidence.NOT_COVERED if value is None else _weakest(used),
        assumptions=(*parts, "every way out is among these", *(_fleet(racks))),
        trusts=tuple(trusts),
        subject="rack" if racks == 1 else f"fleet of {racks} racks",
        method=METHOD,
        sample=f"{traffic.output_tokens:.4g} tokens, {traffic.messages:.4g} messages, "
        f"{traffic.wire_bytes:.4g} bytes a rack and day",
        inputs={"claims": digest_of(used)},
    )


def _larger(one: Claim | None, other: Claim) -> Claim:
    """The claim that says more may leave; one without a value says that most."""
    if one is None or (other.value is None and one.value is not None):
        return other
    if one.value is None or other.value is None:
        return one
    return other if other.value > one.value else one


def _weakest(claims: Iterable[Claim]) -> Evidence:
    """A sum is no better founded than its weakest part."""
    order = [Evidence.MEASURED, Evidence.PROVEN, Evidence.SIMULATED]
    return max((claim.evidence for claim in claims), key=order.index, default=Evidence.PROVEN)


def _fleet(racks: int) -> tuple[str, ...]:
    return () if racks == 1 else (f"each of {racks} racks carries no more than this one",)
