"""The red team's table: what each adversary got away with, beside what was claimed of the same traffic.

Rows come from what `ullage redteam tokens|wire|work|memory --json` print. An adversary *broke* a method if it
got more than the claim says, or if one that must be caught was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ullage.report.documents import Document, number_in, rows, text_in
from ullage.report.words import number, percent


@dataclass(frozen=True)
class Played:
    """One adversary. `leak` and `bound` are in `unit`; None where the game has no such figure."""

    area: str
    """First part of the names of the claims that it plays against: token, channel, compute, memory."""
    name: str
    defence: str
    leak: float | None
    bound: float | None
    unit: str
    caught: str
    broke: bool
    remark: str = ""
    elsewhere: bool = False
    """Another claim covers this leak."""

    @property
    def leak_words(self) -> str:
        return "–" if self.leak is None else self._words(self.leak)

    @property
    def bound_words(self) -> str:
        return "–" if self.bound is None else self._words(self.bound)

    @property
    def share(self) -> float | None:
        """Leak over bound, at most 1 for the picture."""
        if self.leak is None or not self.bound or self.elsewhere:
            return None
        return min(1.0, self.leak / self.bound)

    def _words(self, value: float) -> str:
        return percent(value) if self.unit.startswith("share") else number(value)


def played(documents: Iterable[Document]) -> tuple[Played, ...]:
    """Every adversary in these documents, in their order."""
    return tuple(row for document in documents for row in _of(document.data))


def is_game(document: Document) -> bool:
    """Whether a document is of the red team: its claims speak of games, and not of anybody's machine."""
    return next(_of(document.data), None) is not None


def broken_by(area: str, table: Iterable[Played]) -> tuple[tuple[str, ...], int]:
    """Names of those that broke what claims of this area say, and how many played."""
    own = [row for row in table if row.area == area]
    return tuple(row.name for row in own if row.broke), len(own)


def _of(data: Mapping[str, Any]) -> Iterator[Played]:
    yield from (_token(row) for row in rows(data, "adversaries") if "leaked_bits_per_token" in row)
    yield from (_channel(row) for row in rows(data, "channels"))
    yield from (_work(row) for row in rows(data, "adversaries") if "accounted_honest" in row)
    yield from (_memory(row) for row in rows(data, "cheaters"))


def _token(row: Mapping[str, Any]) -> Played:
    leak, bound = number_in(row, "leaked_bits_per_token"), number_in(row, "bound_bits_per_token")
    detection = row.get("tokens_to_detection")
    median = number_in(detection, "median") if isinstance(detection, dict) else None
    return Played(
        area="token",
        name=text_in(row, "name"),
        defence="recomputed" if row.get("mode") == "audit" else "enforced",
        leak=leak,
        bound=bound,
        unit="bits/token",
        caught="not within the game" if median is None else f"after {median:,.0f} tokens",
        broke=leak is not None and bound is not None and leak > bound,
        remark=text_in(row, "remark"),
    )


def _channel(row: Mapping[str, Any]) -> Played:
    leak, bound = number_in(row, "got"), number_in(row, "residual")
    elsewhere = text_in(row, "counted_as")
    return Played(
        area="channel",
        name=text_in(row, "channel"),
        defence="slots" if row.get("slots") is True else "no slots",
        leak=leak,
        bound=bound,
        unit="bits/message",
        caught="–",
        broke=row.get("is_bounded") is False,
        remark=f"counted as {elsewhere}" if elsewhere else "",
        elsewhere=bool(elsewhere),
    )


def _work(row: Mapping[str, Any]) -> Played:
    caught = row.get("caught") is True
    return Played(
        area="compute",
        name=text_in(row, "name"),
        defence="accounted",
        leak=None,
        bound=None,
        unit="share",
        caught=f"by {text_in(row, 'caught_by') or 'the account'}"
        if caught
        else ("cannot tell" if row.get("undecided") is True else "not caught"),
        broke=row.get("must_be_caught") is True and not caught,
        remark=text_in(row, "summary"),
    )


def _memory(row: Mapping[str, Any]) -> Played:
    runs, caught = number_in(row, "runs") or 0, number_in(row, "caught") or 0
    allowed = text_in(row, "allowed_by")
    return Played(
        area="memory",
        name=text_in(row, "name"),
        defence=text_in(row, "mode"),
        leak=None,
        bound=None,
        unit="share",
        caught=f"{caught:,.0f} of {runs:,.0f} runs",
        broke=caught < runs and not allowed,
        remark=f"allowed by: {allowed}" if allowed else "",
    )
