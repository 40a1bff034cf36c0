"""What leaves a rack unaccounted for in a day, over every way out: a sum over claims, no measurement of its
own.

    total = token capacity x tokens a day + (ending capacity + residual) x messages a day
          + unexplained share of the wire x bytes a day, both ways, x 8
          + telemetry + agents' answers + verdicts + metrics

Errors add: the sum of upper bounds is an upper bound, and the chances that one of them is wrong add too, so n
claims at confidence c_i give a total at 1 - sum(1 - c_i). A claim that is missing makes the total not
covered: a way out that nobody measured is not zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ullage.claims import Bound, Claim, Evidence, Trust, digest_of
from ullage.errors import UsageError

NAME: Final = "total.covert_bits_per_day"
METHOD: Final = "total/1"
SECONDS_A_DAY: Final = 86_400
_ENDINGS: Final = "token.ending_capacity"


@dataclass(frozen=True)
class Traffic:
    """A rack's load in a day, which turns rates into totals. `wire_bytes` is the link's, both ways together:
    the unexplained share is one of both, and all of it may have left."""

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
    """The ways out of a rack with their bits a day.

    Of several claims of one name the largest counts, the one of the worst class (`_worst_class`) among them:
    who cheats chooses the mix of messages.
    """
    factors = {
        "token.covert_capacity": traffic.output_tokens,
        "token.ending_capacity": traffic.messages,
        "channel.residual": traffic.messages,
        "wire.unexplained_fraction": traffic.wire_bytes * 8,
    }
    found: dict[str, Claim] = {}
    for claim in claims:
        name = claim.name.removesuffix("_worst_class")
        if name != claim.name and claim.value is None:
            continue  # nothing is known of the classes: the whole counts
        if name in factors and claim.bound is Bound.UPPER:
            found[name] = _larger(found.get(name), claim)
    if _ENDINGS not in found and not _leaves_endings_out(found.get("token.covert_capacity")):
        del factors[_ENDINGS]
    rows = []
    for name, factor in factors.items():
        one = found.get(name)
        value = None if one is None or one.evidence is Evidence.NOT_COVERED else one.value
        rows.append(Term(name, None if value is None else max(0.0, value) * factor, one))
    rows += [Term(name, bits) for name, bits in doors.bits_per_day.items()]
    return rows


def _leaves_endings_out(capacity: Claim | None) -> bool:
    """Whether a token claim is of values alone: then where answers were cut off has a claim of its own."""
    return capacity is not None and any(_ENDINGS in line for line in capacity.assumptions)


def total_claim(claims: Iterable[Claim], traffic: Traffic, doors: Doors, racks: int = 1) -> Claim:
    """`total.covert_bits_per_day` of `racks` racks that are each like this one.

    Raises ValueError for fewer than one rack, UsageError for claims of two models.
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
    total = sum(term.bits_per_day or 0.0 for term in listed) * racks
    value = None if missing or confidence is None or not math.isfinite(total) else total
    return Claim(
        name=NAME,
        value=value,
        unit="bits/day",
        bound=Bound.UPPER,
        confidence=confidence if value is not None else None,
        evidence=Evidence.NOT_COVERED if value is None else _weakest(used),
        assumptions=(
            *parts,
            "tokens, messages and bytes a day are no more than was stated here: no claim speaks of them",
            "every way out is among these",
            *(_fleet(racks)),
        ),
        trusts=tuple(trusts),
        subject="rack" if racks == 1 else f"fleet of {racks} racks",
        method=METHOD,
        sample=f"{traffic.output_tokens:.4g} tokens, {traffic.messages:.4g} messages, "
        f"{traffic.wire_bytes:.4g} bytes a rack and day",
        inputs={
            "claims": digest_of(used),
            **{claim.name: digest_of([claim]) for claim in used},
            **_model_of(used),
        },
    )


def _model_of(claims: Iterable[Claim]) -> dict[str, str]:
    """The model that the claims are about, if any says. Raises UsageError for two."""
    models = {claim.inputs["model"]: claim.name for claim in claims if claim.inputs.get("model")}
    if len(models) > 1:
        (one, first), (other, second), *_ = models.items()
        raise UsageError(
            f"{first} is about the model {one[:23]}…, {second} about {other[:23]}…: "
            "add up the claims of one model."
        )
    return {"model": next(iter(models))} if models else {}


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
