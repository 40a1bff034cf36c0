"""Standing claims as Prometheus' text format, for dashboards and alarms beside a tap's own figures.

A tap's `/metrics` moves with what a server does, so it is rounded and its bits are counted; claims are
what a verifier said, so they are exact, and are served by whoever holds them: `ullage watch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ullage.claims import Bound, Claim, Reading
from ullage.report.fractions import MEASURES, fractions

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
NAMES: Final = {
    "ullage_claim": "value of a claim; of several about one subject the one that constrains least",
    "ullage_unaccounted_fraction": "unaccounted share, at most, as that reader may see it; absent: not shown",
    "ullage_unaccounted_bar": "what the share is held against",
    "ullage_claims_unreadable": "files of claims that cannot be read; what they said last still stands",
    "ullage_claims_left_out": "claims with a value that are too many to be series",
    "ullage_tap_ready": "1 if the tap releases answers, 0 if it is closed or does not answer",
}
_MOST_CLAIMS = 1_000


def claim_metrics(claims: Sequence[Claim], ready: bool | None, unreadable: int = 0) -> str:
    """The page's text; `ready` as a look at the tap found it, None if it did not answer; `unreadable` of the
    files that the claims come from."""
    standing = _standing(claims)
    series = {
        "ullage_claim": [_claim_line(one) for one in standing[:_MOST_CLAIMS]],
        "ullage_unaccounted_fraction": [
            _line({"fraction": one.measure.key, "reading": reading.value}, one.high)
            for reading in Reading
            for one in fractions(claims, reading)
            if one.high is not None
        ],
        "ullage_unaccounted_bar": [_line({"fraction": one.key}, one.bar) for one in MEASURES],
        "ullage_claims_unreadable": [_line({}, float(unreadable))],
        "ullage_claims_left_out": [_line({}, float(max(0, len(standing) - _MOST_CLAIMS)))],
        "ullage_tap_ready": [_line({}, 1.0 if ready else 0.0)],
    }
    lines = []
    for name, values in series.items():
        lines += [f"# HELP {name} {NAMES[name]}", f"# TYPE {name} gauge"]
        lines += [f"{name}{value}" for value in values]
    return "\n".join(lines) + "\n"


def _standing(claims: Iterable[Claim]) -> list[Claim]:
    """One claim for each name and subject, because a series has one value: the one that constrains least.

    One that says nothing constrains least of all, and leaves its series out.
    """
    chosen: dict[tuple[str, str, Bound], Claim] = {}
    for claim in claims:
        key = (claim.name, claim.subject, claim.bound)
        held = chosen.get(key)
        if held is None or _constrains_less(claim, held):
            chosen[key] = claim
    return [claim for claim in chosen.values() if claim.value is not None]


def _constrains_less(claim: Claim, held: Claim) -> bool:
    if claim.value is None or held.value is None:
        return held.value is not None
    return claim.value < held.value if claim.bound is Bound.LOWER else claim.value > held.value


def _claim_line(claim: Claim) -> str:
    labels = {
        "name": claim.name,
        "bound": claim.bound.value,
        "evidence": claim.evidence.value,
        "unit": claim.unit,
        "subject": claim.subject,
    }
    return _line(labels, claim.value or 0.0)


def _line(labels: dict[str, str], value: float) -> str:
    inner = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    return f"{{{inner}}} {value!r}" if inner else f" {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
