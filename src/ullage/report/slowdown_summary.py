"""The slowdown's first screen in plain words: the answer, what decides it, what would have to be reached."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ullage.report.words import number

AIM = 10.0  # a slowdown that the source would call infeasible
_FAST = 1e9  # bytes/s of a rack from which its links limit nothing
_LONG = 730.0  # days from which a time is told in years
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Need:
    """One constraint that would reach the aim alone: its name, where it stands, where it would have to."""

    label: str
    now: str
    needed: str


@dataclass(frozen=True)
class Summary:
    """What somebody reads who reads nothing else."""

    answer: str
    verified: str
    """What the scenario verifies."""
    spread: str
    example: str
    """The answer as the length of a run of ordinary length."""
    decides: str
    story: str
    in_share: str
    aim: str
    reached: bool
    needs: tuple[Need, ...]
    verdict: str
    """Whether any one bar is enough; empty where that was not asked."""


def rough(value: float | None) -> str:
    """A figure in two digits, without an end where nothing trains."""
    if value is None:
        return "without end"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def duration(days: float) -> str:
    """Days in months or years."""
    return f"{rough(days / 365.25)} years" if days >= _LONG else f"{rough(days / 30.4)} months"


def share(value: float) -> str:
    """A share as a percentage in two digits."""
    return f"{100 * value:.2g} %" if value < 0.995 else "all"


def summarise(document: Mapping[str, Any]) -> Summary:
    """The first screen of a document of `ullage slowdown --json`."""
    detail = document["detail"]
    slow = detail["throughput_slowdown"]
    middle = slow["p50"]
    best = next(row for row in document["strategies"] if row["name"] == detail["best_strategy"])
    return Summary(
        answer=_answer(middle),
        verified=what_is_verified({name: entry["value"] for name, entry in document["constraints"].items()}),
        spread=f"{rough(slow['p05'])} to {rough(slow['p95'])}",
        example=_example(middle, document["assumptions"]["baseline_days"]["mode"]),
        decides=best["label"],
        story=best["story"],
        in_share=f"{100 * detail['best_in']:.0f} %",
        aim=f"{AIM:g}",
        reached=middle is None or middle >= AIM * (1 - 1e-6),
        needs=tuple(_need(row) for row in document["targets"] if row["slowdown"] == AIM and _tells(row)),
        verdict=_verdict(document["central_claim"]),
    )


def what_is_verified(constraints: Mapping[str, float | None]) -> str:
    """The constraints that verification sets, in words; a value of None is without limit."""

    def of(name: str, loosest: float = 0.0) -> float:
        value = constraints[name]
        return loosest if value is None else value

    said = []
    if of("egress", math.inf) < _FAST:
        said.append(f"{number(of('egress'))} bytes a second out of each rack")
    if of("covert_fraction", 1.0) < 1:
        said.append(_unexplained(of("covert_fraction"), constraints["residual"]))
    if constraints["wipe_period"] is not None:
        said.append(f"memory wiped every {_time(of('wipe_period'))}")
    said += _worked(of("accounted_time"), of("accounted_operations"))
    if held := of("resident_memory"):
        said.append(f"{share(held)} of the memory proven")
    if of("update_interval"):
        said.append(f"the model updated every {of('update_interval') / 86_400:.3g} days at most")
    if of("accomplice_share", 1.0) < 1:
        said.append(f"{share(of('accomplice_share'))} of the output for any customers in league")
    return ", ".join(said) if said else "nothing verified"


def _worked(time: float, operations: float) -> list[str]:
    """Time and operations, apart where they differ: a busy machine may have most of its operations left."""
    if time == operations:
        return [f"{share(time)} of the work proven"] if time else []
    said = [f"{share(operations)} of the operations proven"] if operations else []
    return [*said, f"{share(time)} of the time proven to be work"] if time > operations else said


def _unexplained(fraction: float, residual: float | None) -> str:
    """Shares of the output and the rate beside it, of which either may be none."""
    beside = "" if residual == 0 else "any number of" if residual is None else number(residual)
    if fraction or not beside:
        return f"{share(fraction)} of the output unexplained" + (
            f" and {beside} bytes a second beside it" if beside else ""
        )
    return f"{beside} bytes a second unexplained"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} seconds"
    if seconds < 7_200:
        return f"{seconds / 60:.3g} minutes" if round(seconds) != 60 else "minute"
    return f"{seconds / 3_600:.3g} hours"


def _answer(middle: float | None) -> str:
    if middle is None:
        return "It would never end"
    return "Not slower" if middle < 1.05 else f"About {rough(middle)} times slower"


def _example(middle: float | None, days: float) -> str:
    if middle is None or middle < 1.05:
        return ""
    return f"A run of {days:g} days would take {duration(days * middle)}."


def _tells(row: Mapping[str, Any]) -> bool:
    """Whether this constraint can reach the aim by being tightened, and has not yet."""
    return row["needed"] is not None and not row["loosest"]


def _need(row: Mapping[str, Any]) -> Need:
    as_text = share if row["unit"] == "share" else _quantity(row["unit"])
    limit = (
        "at least" if row["unit"] == "days" else "at most"
    )  # updates are the only lever that tightens upwards
    now = "without limit" if row["now"] is None else as_text(row["now"])
    return Need(row["lever"], now, f"{limit} {as_text(row['needed'])}")


def _quantity(unit: str) -> Any:
    return lambda value: f"{number(float(f'{value:.2g}'))} {unit}"


def _verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    enough = sum(row["verdict"] == "yes" for row in rows)
    open_ones = sum(row["verdict"] == "cannot tell" for row in rows)
    if not enough and not open_ones:
        return f"No: none of the {_count(len(rows))} bars is enough alone."
    parts = f"{_count(enough).capitalize()} of the {_count(len(rows))} bars enough alone"
    return f"{parts}; for {_count(open_ones)} it cannot be told." if open_ones else f"{parts}."


def _count(value: int) -> str:
    return _NUMBERS[value] if value < len(_NUMBERS) else str(value)
