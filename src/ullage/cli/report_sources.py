"""What `ullage report` reads: documents, bundles with their evidence, a log, and the slowdown they imply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ullage.claims import Claim, Reading
from ullage.errors import UllageError, UsageError
from ullage.log.claims import log_claims
from ullage.log.keys import load_verifier
from ullage.log.reader import LogReader, Progress
from ullage.log.sealed.openers import load_opener
from ullage.report.documents import Document, read_document
from ullage.report.fractions import worst
from ullage.report.messages import Texts, pack
from ullage.report.report_page import AuditView, Curve, Declaration, LogView, Slowdown, Sources
from ullage.report.token_table import (
    TokenTable,
    margin_columns,
    message_columns,
    read_outcomes,
    read_tokens,
    typical_message,
)
from ullage.report.verdict_view import VerdictView, read_verdict

if TYPE_CHECKING:
    from ullage.model.tokenizer import ModelTokenizer

_PACK_CHARACTERS = 3_600_000
"""Of base64, over all bundles: with it a page stays below 5 MB."""
_TOKENS, _RECORDS = "evidence/audit.parquet", "evidence/records.parquet"
_ALPHA = 1e-4
_FLOOR = 1e-9  # no token is called outside here; the smallest limit for those that would be
_CURVE_POINTS = 400
_SLOWDOWN_DRAWS = 400
_MOST_FINDINGS = 20


@dataclass(frozen=True)
class Request:
    """What the command was given."""

    claims: tuple[Path, ...]
    log: Path | None = None
    key: Path | None = None
    verdict_key: Path | None = None
    record_keys: Path | None = None
    model: Path | None = None


def gather(request: Request, progress: Progress = lambda stage, done, total: None) -> Sources:
    """Read everything. Raises UllageError for what is malformed, or signed by somebody else."""
    documents = []
    for number, path in enumerate(request.claims):
        progress("reading claims", number, len(request.claims))
        documents.append(read_document(path))
    bundles = [one for one in documents if one.bundle is not None and (one.bundle / _TOKENS).exists()]
    verdicts = [_verdict(one.bundle, request.verdict_key) for one in bundles if one.bundle is not None]
    logs, log_declared, extra = _log(request, progress)
    declared = [*log_declared, *(_declaration(one.declaration) for one in verdicts if one is not None)]
    texts = _Texts(request, declared)
    room = _PACK_CHARACTERS // max(1, len(bundles))
    audits = []
    for number, (document, verdict) in enumerate(zip(bundles, verdicts, strict=True)):
        progress("laying out messages", number, len(bundles))
        audits.append(_audit(document, verdict, texts, room))
    named = tuple(replace(one, name=texts.name_of(one.model)) for one in dict.fromkeys(declared))
    sources = Sources(tuple(documents), tuple(audits), logs, named, extra)
    progress("working out the slowdown", 0, 0)
    return replace(sources, slowdowns=_slowdowns(sources.claims))


def _verdict(bundle: Path, key: Path | None) -> VerdictView | None:
    from ullage.audit.bundle.folder import VERDICT, verify_bundle

    if not (bundle / VERDICT).exists():
        return None
    if key is None:
        return read_verdict(bundle / VERDICT)
    verifier = load_verifier(key)
    verify_bundle(bundle, verifier)
    return read_verdict(bundle / VERDICT, verifier.name)


def _declaration(fields: Mapping[str, str]) -> Declaration:
    return Declaration(*(fields.get(name, "") for name in ("model", "profile", "dtype", "log_id")))


def _log(
    request: Request, progress: Progress
) -> tuple[tuple[LogView, ...], list[Declaration], tuple[Claim, ...]]:
    if request.log is None:
        return (), [], ()
    reader = LogReader.open(request.log, None if request.key is None else load_verifier(request.key))
    found = reader.verify(progress)
    for finding in found.findings:
        if finding.code == "not-a-log":  # a folder named wrongly must not read as a log that fails
            raise UsageError(finding.sentence)
    header = found.header
    view = LogView(
        name=str(request.log),
        log_id=header.log_id if header else "",
        verdict=found.verdict,
        entries=found.entries,
        covered=found.covered,
        records=found.opened,
        closed=found.closed,
        aborted=found.aborted,
        self_vouched=found.self_vouched,
        findings=tuple(one.sentence for one in found.findings[:_MOST_FINDINGS]),
        first=found.first_time,
        last=found.last_time,
    )
    declared = (
        [Declaration(header.model_digest, header.profile, header.dtype, header.log_id)] if header else []
    )
    return (view,), declared, tuple(log_claims(found))


class _Texts:
    """Texts of tokens from the declared model's tokenizer, where it is at hand, and opened prompts."""

    def __init__(self, request: Request, declared: Sequence[Declaration]) -> None:
        self._request = request
        self._tokenizer, self._digest, self._name = _tokenizer(request.model, declared)

    def name_of(self, digest: str) -> str:
        return self._name if digest == self._digest else ""

    def of(self, bundle: Path, verdict: VerdictView | None) -> Texts:
        digest = verdict.declaration.get("model", "") if verdict else ""
        tokenizer = self._tokenizer if digest == self._digest else None
        return Texts(_text_of(tokenizer), read_outcomes(bundle / _RECORDS), self._prompts(verdict, tokenizer))

    def _prompts(self, verdict: VerdictView | None, tokenizer: ModelTokenizer | None) -> dict[int, str]:
        """The prompts of the log's records, if they can be opened and the audit was of this log."""
        request = self._request
        if request.log is None or request.record_keys is None or verdict is None or tokenizer is None:
            return {}
        reader = LogReader.open(request.log, opener=load_opener(None, request.record_keys))
        if reader.header.log_id != verdict.declaration.get("log_id"):
            return {}
        return {record.open.counter: tokenizer.decode(record.open.prompt_ids) for record in reader.records()}


def _tokenizer(
    folder: Path | None, declared: Sequence[Declaration]
) -> tuple[ModelTokenizer | None, str, str]:
    from ullage.model.builtin import builtin_path, model_name
    from ullage.model.identity import identify
    from ullage.model.tokenizer import ModelTokenizer

    if not declared:
        return None, "", ""
    place = folder or builtin_path()
    digest = identify(place).digest
    if all(one.model != digest for one in declared):
        if folder is not None:
            raise UsageError(f"{folder} is not the declared model: its digest is {digest[:23]}….")
        return None, "", ""
    return ModelTokenizer.load(place), digest, model_name(place)


def _text_of(tokenizer: ModelTokenizer | None) -> Callable[[int], str]:
    """Without a tokenizer a token is shown by its number."""
    if tokenizer is None:
        return lambda token: f"⟨{token}⟩"

    def text(token: int) -> str:
        if token in tokenizer.eos_ids:
            return "⟨end⟩"
        return tokenizer.decode([token]) or f"⟨{token}⟩"

    return text


def _audit(document: Document, verdict: VerdictView | None, texts: _Texts, room: int) -> AuditView:
    assert document.bundle is not None  # noqa: S101 - the caller chose those that have one
    table = read_tokens(document.bundle / _TOKENS)
    first = typical_message(table)
    packed = None
    if first is not None:
        packed = pack(table, texts.of(document.bundle, verdict), room, first)
    return AuditView(
        name=document.bundle.name,
        verdict=verdict,
        tokens=len(table.token),
        messages=len(table.messages[0]),
        mismatches=int(table.mismatch.sum()),
        margins=margin_columns(table),
        by_message=message_columns(table.mismatches_a_message),
        curve=_curve(table, verdict.limit if verdict else None),
        pack=packed,
    )


def _curve(table: TokenTable, limit: float | None) -> Curve | None:
    """The audit's own alarm, where it had a calibration; else the test against "each token differs with a
    chance of at most `limit`". In the log's order."""
    from ullage.audit.bounds.alarm import first_crossing, log_e_process, log_supremum

    tokens = len(table.token)
    calibrated = table.log_e is not None
    if not tokens or (not calibrated and (limit is None or not 0 < limit < 1)):
        return None
    log_e = table.log_e
    if log_e is None:
        limits = np.full(tokens, limit)
        log_e = log_e_process(limits, table.mismatch, np.zeros(tokens, dtype=np.bool_), _FLOOR)
    crossing = int(first_crossing(log_e, _ALPHA))
    places = np.unique(np.linspace(0, tokens - 1, min(tokens, _CURVE_POINTS)).astype(np.int64))
    return Curve(
        points=tuple((int(place) + 1, float(log_e[place])) for place in places),
        tokens=tokens,
        supremum=float(log_supremum(log_e)),
        threshold=float(-np.log(_ALPHA)),
        alpha=_ALPHA,
        limit=limit or 0.0,
        calibrated=calibrated,
        crossing=crossing or None,
        record=int(table.record[crossing - 1]) if crossing else None,
    )


def _slowdowns(claims: Sequence[Claim]) -> dict[Reading, Slowdown]:
    """How much slower covert training is under these claims, for readers whom no claim tells already."""
    if not claims:
        return {}
    return {reading: _slowdown(claims, reading) for reading in Reading if not _is_said(claims, reading)}


def _is_said(claims: Sequence[Claim], reading: Reading) -> bool:
    claim, _ = worst([claim.read_as(reading) for claim in claims], "training.slowdown")
    return claim is not None and (claim.value is not None or claim.unbounded)


def _slowdown(claims: Sequence[Claim], reading: Reading) -> Slowdown:
    from ullage.slowdown.constraints import Constraints, Scenario
    from ullage.slowdown.document import slowdown_claim
    from ullage.slowdown.evaluation import evaluate
    from ullage.slowdown.from_claims import apply_claims
    from ullage.slowdown.parameters import draw

    try:
        scenario = apply_claims(Scenario("the claims alone", Constraints()), claims, reading)
    except UllageError as error:
        return Slowdown(None, str(error))
    found = evaluate(scenario.with_dark_share(0.05), draw(_SLOWDOWN_DRAWS, 0), details=False)
    claim = slowdown_claim(
        "training.slowdown", found.training, found, "the smallest over the cluster types of the table"
    )
    return Slowdown(claim, "if no tap sees 5 % of compute")
