"""The live page: a tap's figures as they move, beside the claims that stand so far.

Nothing on it is secret: figures are those of the tap's own metrics page, quantised and taken at fixed times,
and claims. The page is served once; what moves comes as server-sent events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from ullage.claims import Claim, Reading
from ullage.report import words
from ullage.report.claim_view import figure
from ullage.report.documents import Document
from ullage.report.environment import render_template
from ullage.report.fractions import axis_position, axis_ticks, worst
from ullage.report.report_page import Reader, Slowdown, Sources, reader

SHOWN = (
    ("requests_total", "requests", 100),
    ("output_tokens_total", "tokens out", 10_000),
    ("client_sent_bytes_total", "bytes released", 1_000_000),
    ("failed_total", "failures of the server", 10),
    ("tap_delays_total", "slots missed", 10),
    ("noncanonical_outputs_total", "outputs not canonical", 10),
)
"""Figures in the order of the page, and the step in which the tap has each rise: less of it reads as less."""
LEFT, BUDGET = "covert_left_bits", "covert_budget_bits"
"""What today's answers may still carry in secret, and the declared budget, where there is one."""
_ALARM = "alarm_"
_REASONS = {
    "channel_exhausted": "late and failed answers have used up their allowance",
    "log_unavailable": "its log cannot be written",
    "enforcer_unavailable": "the reference beside it does not answer",
    "meter_unavailable": "the meter of the server's link is silent",
    "clock_unsure": "its clock has jumped",
    "shutting_down": "it is being stopped",
}
"""What `/readyz` says of a tap that is closed, in words."""
STANDING = (
    ("token.mismatch_rate", "mismatches"),
    ("total.covert_bits_per_day", "hidden bits a day"),
    ("channel.residual", "beside the tokens"),
    ("wire.egress_cap", "may leave"),
    ("wire.egress_rate", "left, at most"),
    ("memory.wipe_cycle", "a wipe takes"),
    ("log.integrity", "the log is whole"),
)
"""Claims that the live page shows by themselves, beside the four fractions."""


@dataclass(frozen=True)
class Glance:
    """What was seen at one moment. `ready` is None if the tap did not answer."""

    at: str
    ready: bool | None
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def alarms(self) -> list[str]:
        """Alarms that have gone off since the tap started."""
        return [
            name.removeprefix(_ALARM).removesuffix("_total").replace("_", " ").replace("-", " ")
            for name, value in self.figures.items()
            if name.startswith(_ALARM) and value > 0
        ]

    def event(self, claims: str) -> str:
        """One server-sent event; `claims` is the digest of the claims that stand."""
        value: dict[str, Any] = {
            "at": self.at,
            "ready": self.ready,
            "reason": _REASONS.get(self.reason, self.reason),
            "figures": {name: self.figures.get(name) for name, *_ in SHOWN},
            "left": self.figures.get(LEFT),
            "budget": self.figures.get(BUDGET),
            "alarms": self.alarms,
            "claims": claims,
        }
        return f"data: {json.dumps(value)}\n\n"


def readers(claims: Sequence[Claim]) -> tuple[Reader, ...]:
    """The four fractions for both readers."""
    document = Document("", "", tuple(claims))
    why = Slowdown(None, "not worked out here")
    sources = Sources((document,), slowdowns=dict.fromkeys(Reading, why))
    return tuple(reader(sources, reading) for reading in (Reading.INSPECTOR, Reading.OPERATOR))


def standing(claims: Sequence[Claim]) -> list[tuple[str, str, Claim, bool]]:
    """Those of `STANDING` that were given: label, figure, claim, and whether an inspector may rest on it.

    Of several claims of one name it is the one that constrains least.
    """
    found = ((label, worst(claims, name)[0]) for name, label in STANDING)
    return [
        (label, figure(claim), claim, all(map(Reading.INSPECTOR.allows, claim.trusts)))
        for label, claim in found
        if claim is not None
    ]


def script() -> str:
    """The page's one script, which is served beside it."""
    return files("ullage.report").joinpath("templates/live.js").read_text("utf-8")


def render(title: str, claims: Sequence[Claim]) -> str:
    """The page as HTML text."""
    return render_template("live.html.j2", title=title, shown=SHOWN, **_common(claims))


def render_ledger(claims: Sequence[Claim]) -> str:
    """The four fractions alone, for a page that is open already."""
    return render_template("live_ledger.html.j2", **_common(claims))


def _common(claims: Sequence[Claim]) -> dict[str, Any]:
    return {
        "readers": readers(claims), "standing": standing(claims), "words": words,
        "axis_position": axis_position, "ticks": axis_ticks(),
    }  # fmt: skip
