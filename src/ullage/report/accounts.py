"""Where the bytes of a link went (`ullage wire meter --json`), and how long wipes took (`memory cycle`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ullage.report.documents import Document, number_in, rows, text_in

_CLASSES = (
    ("record", "of a record: determined by what the log holds"),
    ("overhead", "protocol: derivable headers and acknowledgements"),
    ("heartbeat", "the meter's own heartbeats"),
    ("unexplained", "explained by nothing"),
)
_PHASES = 12


@dataclass(frozen=True)
class Part:
    """One part of a whole. `share` is of the whole, 0 to 1."""

    key: str
    label: str
    size: float
    share: float


@dataclass(frozen=True)
class WireAccount:
    """All bytes that a meter saw on one link."""

    name: str
    total: int
    parts: tuple[Part, ...]
    reasons: tuple[tuple[str, int], ...]
    """Why bytes are unexplained, with how many."""
    lost_frames: int | None


@dataclass(frozen=True)
class Wipe:
    """One wipe: its phases in seconds, in order, and how the erasure ended."""

    number: int
    seconds: float
    phases: tuple[Part, ...]
    verdict: str


def wire_accounts(documents: Iterable[Document]) -> tuple[WireAccount, ...]:
    """One account a document of a meter."""
    return tuple(_account(one.name, one.data) for one in documents if _is_wire(one.data))


def wipes(documents: Iterable[Document]) -> tuple[Wipe, ...]:
    """Every cycle of every document, in order; phases are parts of the longest cycle."""
    found = [
        row for one in documents for row in rows(one.data, "cycles") if isinstance(row.get("phases"), dict)
    ]
    phases = [_phases(row["phases"]) for row in found]
    longest = max((sum(one.values()) for one in phases), default=0.0)
    return tuple(
        Wipe(
            index + 1,
            sum(one.values()),
            tuple(
                Part(name, name.replace("_", " "), size, size / longest if longest else 0.0)
                for name, size in one.items()
            ),
            text_in(row, "verdict"),
        )
        for index, (row, one) in enumerate(zip(found, phases, strict=True))
    )


def _is_wire(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("bytes"), dict) and "unexplained_by_reason" in data


def _account(name: str, data: Mapping[str, Any]) -> WireAccount:
    sizes = data["bytes"]
    total = max(0, int(number_in(sizes, "total") or 0))
    parts = tuple(
        Part(key, label, size, min(1.0, size / total) if total else 0.0)
        for key, label in _CLASSES
        for size in [max(0.0, number_in(sizes, key) or 0.0)]
    )
    reasons = data["unexplained_by_reason"]
    named = (
        [(str(why), int(size)) for why, size in reasons.items() if isinstance(size, int)]
        if isinstance(reasons, dict)
        else []
    )
    capture = data.get("capture")
    lost = number_in(capture, "lost_frames") if isinstance(capture, dict) else None
    ordered = tuple(sorted(named, key=lambda pair: -pair[1]))
    return WireAccount(name, total, parts, ordered, None if lost is None else int(lost))


def _phases(values: Mapping[str, Any]) -> dict[str, float]:
    """Phases by name; the total, if there is one, is what they add up to and left out."""
    named = {name: number_in(values, name) for name in list(values)[:_PHASES] if name != "total"}
    return {name: size for name, size in named.items() if size is not None and size >= 0}
