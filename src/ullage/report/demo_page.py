"""The demo's page: one self-contained HTML file from what the demo measured.

The page is made of plain values, which are also what `claims.json` and the evidence files hold; it
loads nothing from a network and needs no script to be read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ullage.claims import Claim
from ullage.report.environment import render_template
from ullage.report.words import percent

_AXIS_LOW, _AXIS_HIGH = 1e-5, 1.0  # mismatch rates on the picture, logarithmic
_MARGIN_FULL_COLOUR = 4.0  # logits; a margin from here on has the deepest colour


@dataclass(frozen=True)
class TokenCell:
    """One delivered token of the heat map. `margin` is `None` outside the reference's filtered set."""

    text: str
    margin: float | None
    reference: str

    @property
    def mismatch(self) -> bool:
        return self.margin is None or self.margin > 0

    @property
    def shade(self) -> int:
        """0 for the reference's own token, then 1 (a near tie) to 5 (far off, or outside the filter)."""
        if not self.mismatch:
            return 0
        if self.margin is None:
            return 5
        return 1 + min(4, int(4 * math.sqrt(min(1.0, self.margin / _MARGIN_FULL_COLOUR))))

    @property
    def explanation(self) -> str:
        if not self.mismatch:
            return "the reference's own token"
        if self.margin is None:
            return f"outside the filters; the reference says {self.reference!r}"
        return f"{self.margin:.3f} logits behind {self.reference!r}, the reference's token"


@dataclass(frozen=True)
class Message:
    """One response shown token by token."""

    record: int
    prompt: str
    cells: tuple[TokenCell, ...]

    @property
    def mismatches(self) -> int:
        return sum(cell.mismatch for cell in self.cells)


@dataclass(frozen=True)
class ServerRow:
    """One server of the demo."""

    name: str
    story: str
    declared: str
    verdict: str
    reasons: tuple[str, ...]
    audited_tokens: int
    audited_records: int
    mismatches: int
    rate: float
    low: float
    high: float
    limit: float
    noticed_after: int | None
    leaked_bits: int
    message: Message | None
    claims: tuple[Claim, ...] = ()

    @property
    def verdict_words(self) -> str:
        return {"pass": "pass", "fail": "fail"}.get(self.verdict, "cannot tell")


@dataclass(frozen=True)
class RecoveredPayload:
    """What the payload server smuggled out, as the decoder found it."""

    attempted_bytes: int
    recovered_bytes: int
    bits_per_token: float
    noticed_after: int | None
    bytes_before_notice: int
    excerpt: str


@dataclass(frozen=True)
class DemoPage:
    """Everything that the page shows."""

    title: str
    model: str
    model_digest: str
    created: str
    seconds: float
    machine: str
    rows: tuple[ServerRow, ...]
    payload: RecoveredPayload | None
    not_covered: tuple[str, ...]
    next_commands: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = field(default=())


def axis_position(rate: float) -> float:
    """Where a rate lies on the logarithmic axis, 0 to 100; rates below the axis lie at its left end."""
    clipped = min(max(rate, _AXIS_LOW), _AXIS_HIGH)
    return 100 * math.log(clipped / _AXIS_LOW) / math.log(_AXIS_HIGH / _AXIS_LOW)


def axis_ticks() -> Sequence[tuple[float, str]]:
    """Places from 0 to 1 on the logarithmic axis, with their labels."""
    values = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    return [(axis_position(value), f"{100 * value:g} %") for value in values]


def render(page: DemoPage) -> str:
    """The page as HTML text."""
    return render_template(
        "demo.html.j2",
        page=page,
        axis_position=axis_position,
        percent=percent,
        ticks=axis_ticks(),
    )
