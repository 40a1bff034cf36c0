"""Constraints from claims: which claim sets which field, and what a missing one means.

A claim that is `not-covered` (or too trusting for its reader) leaves its field unconstrained, and says
so. Refused are claims of different models, or of another model than the scenario's (their figures do
not belong to one machine), and values that cannot be. A figure that may err to the other side limits nothing.
What was seen is not what is possible: a rate that was metered never lowers a cap, and a cycle that was timed
never lengthens what a wipe costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ullage.claims import Bound, Claim, Evidence, Reading, Trust, digest_of
from ullage.errors import UsageError
from ullage.slowdown.constraints import Constraints, Note, Scenario, check, first_fault, unconstrain

_DAY = 86_400.0
_HAIR = 1.02  # a metered rate counts parts of frames at the ends of its window
_TOTAL = "total.covert_bits_per_day"
_SUMMED = (
    "token.covert_capacity", "token.ending_capacity", "channel.residual", "wire.unexplained_fraction",
)  # fmt: skip
"""What a total is a sum of."""


@dataclass(frozen=True)
class _Setter:
    """Names in order of preference (those of one group count alike), the field they set, and how."""

    names: tuple[tuple[str, ...], ...]
    field: str
    apply: Callable[[Constraints, float], Constraints]
    beside: bool = False
    """Whether what set the field before still counts: errors add, and limits combine."""


def _set(field: str) -> Callable[[Constraints, float], Constraints]:
    def apply(constraints: Constraints, value: float) -> Constraints:
        return replace(constraints, **{field: value})  # type: ignore[arg-type]

    return apply


def _covert(constraints: Constraints, value: float) -> Constraints:
    return replace(constraints, covert_fraction=min(1.0, value))


def _add_unexplained(constraints: Constraints, value: float) -> Constraints:
    """The share is of both directions' bytes, and all of it may have left."""
    ways = 1.0 + (constraints.ingress / constraints.egress if constraints.egress > 0 else 0.0)
    return replace(constraints, covert_fraction=min(1.0, constraints.covert_fraction + value * ways))


def _total(constraints: Constraints, value: float) -> Constraints:
    return replace(constraints, covert_fraction=0.0, residual=value / 8 / _DAY)


def _seen(constraints: Constraints, value: float) -> Constraints:
    return replace(constraints, egress=max(constraints.egress, value))


def _timed(constraints: Constraints, value: float) -> Constraints:
    return replace(constraints, wipe_cycle=min(constraints.wipe_cycle, value))


def _names(*names: str) -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in names)


_SETTERS: tuple[_Setter, ...] = (
    _Setter(_names("wire.egress_cap"), "egress", _set("egress")),
    _Setter(_names("wire.egress_rate"), "egress", _seen, beside=True),
    _Setter(_names("wire.ingress_cap"), "ingress", _set("ingress")),
    _Setter(
        (
            ("token.covert_fraction_text", "token.covert_fraction_text_worst_class"),
            ("token.covert_fraction", "token.covert_fraction_worst_class"),
        ),
        "covert_fraction",
        _covert,
    ),
    _Setter(_names("wire.unexplained_fraction"), "covert_fraction", _add_unexplained, beside=True),
    _Setter(_names(_TOTAL), "covert_fraction", _total),
    _Setter(_names("compute.accounted_fraction"), "accounted_time", _set("accounted_time")),
    _Setter(_names("compute.accounted_flop"), "accounted_operations", _set("accounted_operations")),
    _Setter(_names("memory.resident_fraction"), "resident_memory", _set("resident_memory")),
    _Setter(_names("memory.erased_fraction"), "erased", _set("erased")),
    _Setter(_names("memory.wipe_cycle"), "wipe_cycle", _timed, beside=True),
)


@dataclass
class _Reading:
    """A scenario as claims change it."""

    constraints: Constraints
    notes: dict[str, Note]
    warnings: list[str]
    assumed: list[str]


def apply_claims(
    scenario: Scenario,
    claims: Iterable[Claim],
    reading: Reading = Reading.OPERATOR,
    model: str = "",
    places: Sequence[str] = (),
) -> Scenario:
    """The scenario with what the claims say about its machine.

    `model` is the digest that the scenario names, if any; `places` says where each claim stood ("claim 1" and
    so on without). Raises UsageError, with that place, for claims of another model or with a value that
    cannot be.
    """
    original = list(claims)
    read = [claim.read_as(reading) for claim in original]
    named = places or [f"claim {number}" for number in range(1, len(read) + 1)]
    where = {id(claim): place for claim, place in zip(read, named, strict=True)}
    _refuse_other_models(read, where, model)
    given = [claim for claim in read if not claim.subject.startswith("fleet of ")]  # we count by the rack
    now = _Reading(
        scenario.constraints, dict(scenario.notes), list(scenario.warnings), list(scenario.assumed)
    )
    now.warnings += [sentence for claim in given for sentence in _other_way(claim)]
    if missing := _not_summed(original):
        given = [claim for claim in given if claim.name != _TOTAL]
        now.warnings.append(f"{_TOTAL} was summed without these claims of {missing}: their shares count")
    for setter in _SETTERS:
        _apply(setter, given, where, now)
    _silences(given, now)
    return Scenario(
        scenario.name,
        check(now.constraints),
        now.notes,
        tuple(dict.fromkeys(now.warnings)),
        tuple(dict.fromkeys(now.assumed)),
    )


def _apply(setter: _Setter, given: list[Claim], where: Mapping[int, str], now: _Reading) -> None:
    """Let the claim that constrains least set the field."""
    field = setter.field
    for claim in given:
        if any(claim.name in group for group in setter.names) and claim.value is not None:
            _refuse_impossible(claim, claim.value, where[id(claim)], field)
    worst = _worst(given, setter.names)
    if worst is None:
        return
    before = [now.notes[field]] if setter.beside and field in now.notes else []
    if worst.value is None:
        if worst.name == "wire.egress_rate":  # who saw nothing did not lift the cap
            return
        now.constraints = unconstrain(now.constraints, field)
        said = "has no bound" if worst.unbounded else "is not covered"
        now.warnings.append(f"{worst.name} {said}: {field} is taken as unconstrained")
        now.notes[field] = Note(Evidence.NOT_COVERED.value, "none")
    else:
        if worst.name == "wire.egress_rate" and worst.value <= now.constraints.egress:
            return
        changed = setter.apply(now.constraints, worst.value)
        fault = first_fault(changed) or first_fault(_longest(changed, worst))
        if fault:
            raise UsageError(
                f"{where[id(worst)]} ({worst.name}: {worst.value:g}) does not fit the scenario: "
                f"{fault[0]} {fault[1]}."
            )
        _say(worst, changed, now)
        now.constraints = changed
        now.notes[field] = _joined([*before, _note_of(worst)])
    now.warnings = [line for line in now.warnings if not _answered(line, field, worst)]
    now.assumed = [line for line in now.assumed if not _answered(line, field, worst)]


def _longest(constraints: Constraints, claim: Claim) -> Constraints:
    """With the cycle as it was timed: one that does not fit the period contradicts the scenario."""
    return (
        replace(constraints, wipe_cycle=claim.value or 0.0)
        if claim.name == "memory.wipe_cycle"
        else constraints
    )


def _say(claim: Claim, changed: Constraints, now: _Reading) -> None:
    """What has to be known of this claim's effect."""
    if claim.name == "wire.egress_rate" and changed.egress > _HAIR * now.constraints.egress:
        now.warnings.append(
            f"wire.egress_rate shows {claim.value:g} bytes/s, more than the scenario's cap: that counts"
        )
    if claim.name == "memory.wipe_cycle" and changed.wipe_cycle > 0:
        now.assumed.append(
            f"a wipe costs a covert job the scenario's {changed.wipe_cycle:g} s: "
            "memory.wipe_cycle says only that it takes no longer"
        )


def _answered(line: str, field: str, claim: Claim) -> bool:
    """Whether this complaint of the scenario's is settled by a claim that sets the field."""
    settled = (f"{field}: not covered", f"memory.{field}: not given")
    return line.startswith(settled) or (
        claim.name == _TOTAL and line.startswith(("residual: not", "tokens.residual: not"))
    )


def _not_summed(claims: list[Claim]) -> str:
    """Names of claims that are worse than what the totals here were summed of; empty without a total."""
    totals = [claim for claim in claims if claim.name == _TOTAL]
    parts = {value for claim in totals for value in claim.inputs.values()}
    left = []
    for name in _SUMMED if totals else ():
        found = [
            (math.inf if claim.value is None else claim.value, digest_of([claim]))
            for claim in claims
            if claim.name == name or (claim.name == f"{name}_worst_class" and claim.value is not None)
        ]
        worst = max((value for value, _ in found), default=0.0)
        if found and not any(value == worst and digest in parts for value, digest in found):
            left.append(name)
    return ", ".join(left)


_FRACTIONS = ("token.covert_fraction_text", "token.covert_fraction")


def _silences(given: list[Claim], now: _Reading) -> None:
    """What no claim speaks of, and what is then taken."""
    leaks = {claim.name for claim in given}
    for setter in _SETTERS:
        name = setter.names[0][0]
        if _worst(given, setter.names) is not None or setter.field in now.notes:
            continue
        if setter.field == "erased" and now.constraints.wiped:
            now.assumed.append(f"no claim on {name}: every wipe is taken to erase all memory")
        elif name != "wire.egress_rate":
            now.warnings.append(f"no claim on {name}: {setter.field} stays as the scenario has it")
    if "wire.egress_rate" in leaks and "egress" not in now.notes:
        now.warnings.append("wire.egress_rate is what was seen, not a cap: it limits nothing")
    if leaks & {*_FRACTIONS} and "residual" not in now.notes and _TOTAL not in leaks:
        ours = " (`ullage total` turns channel.residual into a rate)" if "channel.residual" in leaks else ""
        now.assumed.append(
            f"nothing on lengths, times and order ({_TOTAL}): they are taken to carry none{ours}"
        )
    if {"erased", "wipe_cycle"} & now.notes.keys() and not now.constraints.wiped:
        now.warnings.append(
            "memory.wipe_period of the scenario is not given: wipes are taken as never repeated"
        )


def _refuse_impossible(claim: Claim, value: float, place: str, field: str) -> None:
    """No figure is negative, and no share above one."""
    where = f"{place} ({claim.name}: {value:g})"
    if value < 0:
        raise UsageError(f"{where} is negative.")
    if field in _LOWER and value > 1:
        raise UsageError(f"{where} is a share above 1: what it was measured against is too small.")


def _note_of(claim: Claim) -> Note:
    doubt = 0.0 if claim.confidence is None else 1 - claim.confidence
    return Note(claim.evidence.value, f"claim {claim.name} ({claim.method})", claim.trusts, doubt)


_WEAKER = tuple(e.value for e in (Evidence.MEASURED, Evidence.PROVEN, Evidence.SIMULATED))
_WEAKER += ("assumed", Evidence.NOT_COVERED.value)


def _joined(parts: list[Note]) -> Note:
    """One note for a constraint that several claims make: weakest evidence, everybody that any trusts."""
    if len(parts) == 1:
        return parts[0]
    weakest = max((part.evidence for part in parts), key=_WEAKER.index)
    trusted = {trust for part in parts for trust in part.trusts}
    sources = " + ".join(part.source for part in parts if part.source != "none")
    return Note(
        weakest,
        sources,
        tuple(trust for trust in Trust if trust in trusted),
        sum(part.doubt for part in parts),
    )


_LOWER = {"accounted_time", "accounted_operations", "resident_memory", "erased"}
"""Fields that a larger figure tightens: nothing but a lower bound says that there is so much."""
_LEAST = _LOWER | {"wipe_cycle"}
"""Fields of which the smallest of several figures constrains least."""
_FIELDS = {name: setter.field for setter in _SETTERS for group in setter.names for name in group}


def _says(claim: Claim) -> bool:
    """Whether the claim bounds its figure from the side that its field needs."""
    wanted = Bound.LOWER if _FIELDS[claim.name] in _LOWER else Bound.UPPER
    return claim.value is not None and claim.bound is wanted


def _other_way(claim: Claim) -> list[str]:
    """The warning about a claim whose figure may err to the other side."""
    if claim.name not in _FIELDS or claim.value is None or _says(claim):
        return []
    side = "lower" if _FIELDS[claim.name] in _LOWER else "upper"
    return [f"{claim.name} is given as {claim.bound.value}, and no {side} bound: it constrains nothing"]


def _worst(claims: list[Claim], names: tuple[tuple[str, ...], ...]) -> Claim | None:
    """The claim of the first group that is there; of several the one that constrains least.

    The mean of a window and its worst class (`_worst_class`) count alike: who cheats chooses the mix. A worst
    class that nothing is known of says nothing where the mean does.
    """
    for group in names:
        found = [claim for claim in claims if claim.name in group]
        if any(claim.name == group[0] for claim in found):
            found = [claim for claim in found if claim.name == group[0] or claim.value is not None]
        if not found:
            continue
        blind = [claim for claim in found if not _says(claim)]
        if blind:
            return blind[0].model_copy(update={"value": None, "evidence": Evidence.NOT_COVERED})
        least = min if _FIELDS[group[0]] in _LEAST else max
        return least(found, key=lambda claim: claim.value or 0.0)
    return None


def _refuse_other_models(claims: list[Claim], where: Mapping[int, str], model: str) -> None:
    seen = {model: "the scenario"} if model else {}
    for claim in claims:
        digest = claim.inputs.get("model", "")
        if not digest:
            continue
        if seen and digest not in seen:
            other, first = next(iter(seen.items()))
            raise UsageError(
                f"{where[id(claim)]} ({claim.name}) is about the model {digest[:23]}…, "
                f"{first} about {other[:23]}…: use the claims of one model."
            )
        seen.setdefault(digest, where[id(claim)])
