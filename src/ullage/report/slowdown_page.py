"""The slowdown's page: one self-contained HTML file from the JSON document of `ullage slowdown`.

It loads nothing from a network. Everything but the sliders can be read without a script; the one
script is named by its digest in the page's content policy, so no other can run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from ullage.report.environment import render_template
from ullage.report.slowdown_summary import summarise
from ullage.report.words import days, factor, number

_AXIS_LOW, _AXIS_HIGH = 1.0, 50.0  # slowdowns on the pictures, logarithmic
_SHOWN_BARS = 14


def axis_position(value: float | None) -> float:
    """Where a slowdown lies on the logarithmic axis, 0 to 100; None (never) at its right end."""
    if value is None:
        return 100.0
    clipped = min(max(value, _AXIS_LOW), _AXIS_HIGH)
    return 100 * math.log(clipped / _AXIS_LOW) / math.log(_AXIS_HIGH / _AXIS_LOW)


def span(quantiles: Mapping[str, float | None]) -> str:
    """The middle nine tenths of the draws, as factors."""
    return f"{factor(quantiles['p05'])} to {factor(quantiles['p95'])}"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.3g} %"


def needed(row: Mapping[str, Any]) -> str:
    """What a lever would have to reach, in its own unit."""
    value = row["needed"]
    if value is None:
        return "–"
    if row["loosest"]:
        return "any"
    return percent(value) if row["unit"] == "share" else number(value)


def render(document: Mapping[str, Any], grid: Mapping[str, Any], created: str) -> str:
    """The page as HTML text, from `ullage.slowdown.document.as_json` and `slider_grid`."""
    script = files("ullage.report").joinpath("templates/slowdown.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in document["scenarios"]:
        rows.setdefault(row["name"], []).append(row)
    levers: dict[str, list[Mapping[str, Any]]] = {}
    for target in document["targets"]:
        levers.setdefault(target["lever"], []).append(target)
    return render_template(
        "slowdown.html.j2",
        document=document,
        summary=summarise(document),
        rows=rows,
        levers=levers,
        bars=document["tornado"][:_SHOWN_BARS],
        grid=json.dumps(grid, separators=(",", ":")).replace("<", "\\u003c"),
        script=script,
        digest=digest,
        created=created,
        ticks=[(axis_position(value), f"{value:g}") for value in (1, 2, 5, 10, 20, 50)],
        axis_position=axis_position,
        factor=factor,
        span=span,
        days=days,
        number=number,
        percent=percent,
        needed=needed,
    )
