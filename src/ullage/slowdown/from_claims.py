"""Constraints from claims: which claim sets which field, and what a missing one means.

A claim that is `not-covered` (or too trusting for its reader) leaves its field unconstrained, and says
so. Refused are claims of different models, or of another model than the scenario's (their figures do
not belong to one machine), and values that cannot be. A figure that may err to the other side limits nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from ullage.claims import Bound, Claim, Evidence, Reading, Trust
from ullage.errors import UsageError
from ullage.slowdown.constraints import Constraints, Note, Scenario, check, first_fault, unconstrain

_DAY = 86_400.0
_Setter = Callable[[Constraints, float], Constraints]


def _set(field: str) -> _Setter:
    def apply(constraints: Constraints, value: float) -> Constraints:
        return replace(constraints, **{field: value})  # type: ignore[arg-type]

    return apply


def _covert(constraints: Constraints, value: float) -> Constraints:
    return replace(constraints, covert_fraction=min(1.0, value))


def _add_unexplained(constraints: Constraints, value: float) -> Constraints:
    return replace(constraints, covert_fraction=min(1.0, constraints.covert_fraction + value))


def _total(constraints: Constraints, value: float) -> Constraints:
    return replace(constraints, covert_fraction=0.0, residual=value / 8 / _DAY)


_SETTERS: tuple[tuple[tuple[str, ...], str, _Setter], ...] = (
    (("wire.egress_rate",), "egress", lambda c, v: replace(c, egress=v, ingress=v)),
    (("token.covert_fraction_text", "token.covert_fraction"), "covert_fraction", _covert),
    (("wire.unexplained_fraction",), "covert_fraction", _add_unexplained),
    (("total.covert_bits_per_day",), "covert_fraction", _total),
    (("compute.accounted_fraction",), "accounted_time", _set("accounted_time")),
    (("compute.accounted_flop",), "accounted_operations", _set("accounted_operations")),
    (("memory.resident_fraction",), "resident_memory", _set("resident_memory")),
    (("memory.erased_fraction",), "erased", _set("erased")),
    (("memory.wipe_cycle",), "wipe_cycle", _set("wipe_cycle")),
)
"""Names in order of preference, the field they set, and how. Upper bounds of leaks add up."""


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
    read = [claim.read_as(reading) for claim in claims]
    named = places or [f"claim {number}" for number in range(1, len(read) + 1)]
    where = {id(claim): place for claim, place in zip(read, named, strict=True)}
    _refuse_other_models(read, where, model)
    given = [claim for claim in read if not claim.subject.startswith("fleet of ")]  # we count by the rack
    constraints, notes, warnings = scenario.constraints, dict(scenario.notes), list(scenario.warnings)
    warnings += [sentence for claim in given for sentence in _other_way(claim)]
    behind: dict[str, list[Note]] = {}  # of each field that claims set, the parts that stand now
    for names, field, apply in _SETTERS:
        for claim in given:
            if claim.name in names and claim.value is not None:
                _refuse_impossible(claim, claim.value, where[id(claim)], field)
        worst = _worst(given, names)
        if worst is None:
            continue
        if worst.value is None:
            constraints = unconstrain(constraints, field)
            said = "has no bound" if worst.unbounded else "is not covered"
            warnings.append(f"{worst.name} {said}: {field} is taken as unconstrained")
            behind[field] = [Note(Evidence.NOT_COVERED.value, "none")]
        else:
            if field == "egress":
                warnings.append(f"{worst.name} is about what leaves: the cap is taken to hold both ways")
            constraints = apply(constraints, worst.value)
            if fault := first_fault(constraints):
                raise UsageError(
                    f"{where[id(worst)]} ({worst.name}: {worst.value:g}) does not fit the scenario: "
                    f"{fault[0]} {fault[1]}."
                )
            kept = behind.get(field, []) if apply is _add_unexplained else []
            behind[field] = [*kept, _note_of(worst)]
        notes[field] = _joined(behind[field])
        warnings = [line for line in warnings if not _answered(line, field, worst)]
    warnings += _silences(given, constraints, notes)
    return Scenario(scenario.name, check(constraints), notes, tuple(dict.fromkeys(warnings)))


def _answered(line: str, field: str, claim: Claim) -> bool:
    """Whether this complaint of the scenario's is settled by a claim that sets the field."""
    settled = (f"{field}: not covered", f"memory.{field}: not given")
    return line.startswith(settled) or (
        claim.name == "total.covert_bits_per_day"
        and line.startswith(("residual: not", "tokens.residual: not"))
    )


_FRACTIONS = ("token.covert_fraction_text", "token.covert_fraction")


def _silences(given: list[Claim], constraints: Constraints, notes: dict[str, Note]) -> list[str]:
    """What no claim speaks of, and what is then taken."""
    said = []
    for names, field, _ in _SETTERS:
        if _worst(given, names) is not None or field in notes:
            continue
        if field == "erased" and constraints.wiped:
            said.append(f"no claim on {names[0]}: every wipe is taken to erase all memory")
        else:
            said.append(f"no claim on {names[0]}: {field} stays as the scenario has it")
    leaks = {claim.name for claim in given}
    if leaks & {*_FRACTIONS} and "residual" not in notes and "total.covert_bits_per_day" not in leaks:
        said.append(
            "nothing on lengths, times and order (total.covert_bits_per_day): they are taken to carry none"
        )
    if {"erased", "wipe_cycle"} & notes.keys() and not constraints.wiped:
        said.append("memory.wipe_period of the scenario is not given: wipes are taken as never repeated")
    return said


def _refuse_impossible(claim: Claim, value: float, place: str, field: str) -> None:
    """No figure is negative, and no share above one."""
    where = f"{place} ({claim.name}: {value:g})"
    if value < 0:
        raise UsageError(f"{where} is negative.")
    if field in _LOWER and value > 1:
        raise UsageError(f"{where} is a share above 1: what it was measured against is too small.")


def _note_of(claim: Claim) -> Note:
    return Note(claim.evidence.value, f"claim {claim.name} ({claim.method})", claim.trusts)


_WEAKER = (Evidence.MEASURED, Evidence.PROVEN, Evidence.SIMULATED, Evidence.NOT_COVERED)


def _joined(parts: list[Note]) -> Note:
    """One note for a constraint that several claims make: weakest evidence, everybody that any trusts."""
    if len(parts) == 1:
        return parts[0]
    weakest = max((Evidence(part.evidence) for part in parts), key=_WEAKER.index)
    trusted = {trust for part in parts for trust in part.trusts}
    sources = " + ".join(part.source for part in parts if part.source != "none")
    return Note(weakest.value, sources, tuple(trust for trust in Trust if trust in trusted))


_LOWER = {"accounted_time", "accounted_operations", "resident_memory", "erased"}
"""Fields that a larger figure tightens: nothing but a lower bound says that there is so much."""
_LEAST = _LOWER | {"wipe_cycle"}
"""Fields of which the smallest of several figures constrains least."""
_FIELDS = {name: field for names, field, _ in _SETTERS for name in names}


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


def _worst(claims: list[Claim], names: tuple[str, ...]) -> Claim | None:
    """The claim of the first name that is there; of several the one that constrains least."""
    for name in names:
        found = [claim for claim in claims if claim.name == name]
        if not found:
            continue
        blind = [claim for claim in found if not _says(claim)]
        if blind:
            return blind[0].model_copy(update={"value": None, "evidence": Evidence.NOT_COVERED})
        return (min if _FIELDS[name] in _LEAST else max)(found, key=lambda claim: claim.value or 0.0)
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
