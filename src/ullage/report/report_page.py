"""The report: one self-contained HTML page from any set of claims, evidence bundles, documents and a log.

It loads nothing from a network. All but the browsing of messages can be read without a script, the switch
between readers included; the one script is named by its digest in the page's content policy, so no other
can run, whatever an untrusted server wrote.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import PurePath

from ullage.claims import Claim, Reading, digest_of, merge
from ullage.report import words
from ullage.report.accounts import Wipe, WireAccount, wipes, wire_accounts
from ullage.report.adversaries import Played, is_game, played
from ullage.report.claim_view import Group, figure, groups
from ullage.report.coverage import ALWAYS, Gap, gaps
from ullage.report.documents import Document, all_claims
from ullage.report.environment import render_template
from ullage.report.fractions import Fraction, Standing, axis_position, axis_ticks, fractions, worst
from ullage.report.messages import Pack
from ullage.report.token_table import Column
from ullage.report.verdict_view import VerdictView, worst_outcome


@dataclass(frozen=True)
class Curve:
    """ln E of a test against a limit, or of the calibrated alarm, over the audited tokens in the log's order.

    `points` are (tokens seen, ln E), thinned out; `crossing` is where E first reached 1/alpha.
    """

    points: tuple[tuple[int, float], ...]
    tokens: int
    supremum: float
    threshold: float
    alpha: float
    limit: float
    crossing: int | None
    record: int | None
    calibrated: bool = False
    """Whether it is the audit's own alarm over calibrated noise, and not a test of the tolerated share."""

    @property
    def low(self) -> float:
        """Bottom of the picture: a long honest log sinks far below 1, which is not worth the room."""
        lowest = min((value for _, value in self.points), default=0.0)
        return max(-2 * self.threshold, min(0.0, lowest))

    @property
    def high(self) -> float:
        """Top of the picture: room for the threshold, but never so high that the curve is a line."""
        top = max((value for _, value in self.points), default=0.0)
        return max(1.25 * self.threshold, min(top, 6 * self.threshold))

    @property
    def is_cut(self) -> bool:
        """Whether the curve goes on below the picture."""
        return any(value < self.low for _, value in self.points)

    @property
    def is_higher(self) -> bool:
        """Whether the curve goes on above the picture."""
        return any(value > self.high for _, value in self.points)

    def height(self, value: float) -> float:
        """Where a value lies on the picture, 0 at its top and 100 at its bottom."""
        shown = max(min(value, self.high), self.low)
        return 100 * (self.high - shown) / (self.high - self.low)

    @property
    def path(self) -> str:
        """The curve as an SVG path in a box of 100 by 100."""
        steps = [f"{100 * seen / self.tokens:.2f} {self.height(value):.2f}" for seen, value in self.points]
        return "M0 " + f"{self.height(0.0):.2f} L" + " ".join(steps) if steps else ""


@dataclass(frozen=True)
class AuditView:
    """One evidence bundle."""

    name: str
    verdict: VerdictView | None
    tokens: int
    messages: int
    mismatches: int
    margins: tuple[Column, ...]
    by_message: tuple[Column, ...]
    curve: Curve | None
    pack: Pack | None


@dataclass(frozen=True)
class LogView:
    """One log as the reader of this report found it."""

    name: str
    log_id: str
    verdict: str
    entries: int
    covered: int
    records: int
    closed: int
    aborted: int
    self_vouched: bool
    findings: tuple[str, ...]
    first: int | None
    last: int | None


@dataclass(frozen=True)
class Declaration:
    """What a server declares to be, as a log's header or a verdict has it."""

    model: str
    profile: str
    dtype: str
    log_id: str
    name: str = ""


@dataclass(frozen=True)
class Slowdown:
    """The answer to "how much slower?" for one reader; without a claim, why not."""

    claim: Claim | None
    reason: str = ""


@dataclass(frozen=True)
class Sources:
    """All that a report is made of."""

    documents: tuple[Document, ...]
    audits: tuple[AuditView, ...] = ()
    logs: tuple[LogView, ...] = ()
    declarations: tuple[Declaration, ...] = ()
    extra_claims: tuple[Claim, ...] = ()
    """Claims that are in no document: those of the log, just checked."""
    slowdowns: dict[Reading, Slowdown] = field(default_factory=dict)

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """Of the machine: those of the red team's games are in their own table."""
        real = (document for document in self.documents if not is_game(document))
        return merge((all_claims(real), self.extra_claims))

    @cached_property
    def _origins(self) -> dict[str, str]:
        """The name of the first input that has a claim, by the claim's digest."""
        found: dict[str, str] = {}
        for document in self.documents:
            for claim in document.claims:
                found.setdefault(digest_of([claim]), PurePath(document.name).name)
        return found

    def origin(self, claim: Claim) -> str:
        """The last part of the name of the first input that has this claim."""
        return self._origins.get(digest_of([claim]), "the log, checked just now")


@dataclass(frozen=True)
class Reader:
    """What one reader sees."""

    reading: Reading
    fractions: tuple[Fraction, ...]
    slowdown: Slowdown
    gaps: tuple[Gap, ...]

    @property
    def within(self) -> int:
        return sum(1 for one in self.fractions if one.standing is Standing.WITHIN)

    @property
    def missing(self) -> int:
        return sum(1 for one in self.fractions if one.standing is Standing.MISSING)


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    created: str
    outcome: str
    sources: Sources
    readers: tuple[Reader, ...]
    groups: tuple[Group, ...]
    adversaries: tuple[Played, ...]
    wires: tuple[WireAccount, ...]
    wipes: tuple[Wipe, ...]
    always: tuple[str, ...] = ALWAYS

    @property
    def outcome_words(self) -> str:
        return {"pass": "Pass", "fail": "Fail", "cannot-tell": "Cannot tell"}.get(self.outcome, "No verdict")


def make_report(sources: Sources, created: str) -> Report:
    """The page's content from what was read."""
    table = played(sources.documents)
    return Report(
        created=created,
        outcome=_outcome(sources),
        sources=sources,
        readers=tuple(reader(sources, reading) for reading in (Reading.INSPECTOR, Reading.OPERATOR)),
        groups=groups(sources.claims, table, sources.origin),
        adversaries=table,
        wires=wire_accounts(sources.documents),
        wipes=wipes(sources.documents),
    )


def reader(sources: Sources, reading: Reading) -> Reader:
    """What this reader sees of the claims."""
    return Reader(
        reading,
        fractions(sources.claims, reading),
        _slowdown(sources, reading),
        gaps(sources.claims, reading),
    )


def render(report: Report) -> str:
    """The page as HTML text."""
    script = files("ullage.report").joinpath("templates/report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render_template(
        "report.html.j2",
        report=report,
        script=script,
        digest=digest,
        words=words,
        figure=figure,
        axis_position=axis_position,
        ticks=axis_ticks(),
    )


def _outcome(sources: Sources) -> str:
    """The worst of what the verdicts and the logs say; a log alone never passes for a verdict on tokens."""
    verdicts = [audit.verdict for audit in sources.audits if audit.verdict is not None]
    said = worst_outcome(verdicts)
    if any(log.verdict == "fail" for log in sources.logs):
        return "fail"
    if said == "pass" and any(log.verdict == "cannot-tell" for log in sources.logs):
        return "cannot-tell"
    return said


def _slowdown(sources: Sources, reading: Reading) -> Slowdown:
    """The claim that was given, else what the caller worked out from the others."""
    given: Sequence[Claim] = [claim.read_as(reading) for claim in sources.claims]
    claim, _ = worst(given, "training.slowdown")
    if claim is not None and claim.value is not None:
        return Slowdown(claim)
    if reading in sources.slowdowns:
        return sources.slowdowns[reading]
    if claim is None:
        return Slowdown(None, "no claim training.slowdown was given")
    if claim.unbounded:
        return Slowdown(None, "the claim training.slowdown is unbounded: by it nothing trains at all")
    return Slowdown(None, f"the claim training.slowdown tells {reading.value}s nothing")
