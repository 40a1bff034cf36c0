"""The exact audit of an enforced log: transcripts derived again from their causes, compared bit for bit.

Under enforcement a prompt, a seed, parameters and a reference have one transcript (`docs/enforcement.md`).
The log's header names the reference's numerics; only a machine that has the same ones can derive it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ullage.audit.bounds.window import WindowShape
from ullage.audit.bundle.envelope import Sample
from ullage.audit.bundle.evidence import AuditedRecord, TokenScores
from ullage.audit.examination import Examination, Progress, check_model, read_records
from ullage.audit.recompute import check_tokens, parameters_of
from ullage.errors import UsageError
from ullage.log.reader import LogReader
from ullage.log.record import HeaderPart, Record
from ullage.sampling.profiles import get_profile

if TYPE_CHECKING:
    from ullage.enforce.rederive import Rederived, Rule
    from ullage.enforce.reference import ChunkedReference
    from ullage.model.loading import Precision

DEFAULT_THREADS: Final = 2
"""What `ullage enforcer` uses: kernels may round differently on other numbers of threads."""
NOTHING_HERE: Final = -1
"""Stands in `TokenScores.reference` where the reference's transcript has ended already."""
_BATCH: Final = 8
_DEFAULT_CHUNK: Final = 32


@dataclass(frozen=True)
class Derivation:
    """What the transcripts were derived with, and how many of them are the log's."""

    reference_digest: str
    dtype: Precision
    chunk: int
    records: int = 0
    identical: int = 0


def find_derivation(header: HeaderPart) -> Derivation:
    """How this machine derives the transcripts of a log with this header.

    Raises UsageError when it cannot: the log was not enforced, or under other numerics.
    """
    digest = header.reference_digest
    if digest is None:
        raise UsageError(
            "The log names no reference, so its tokens are the server's own and no transcript can be "
            "derived: --exact is for logs of `ullage tap --enforce`. Leave it out to audit with a tolerance."
        )
    rule = _rule(digest)
    if rule is None:
        from ullage.enforce.reference import reference_digest

        ours = reference_digest("float32", _DEFAULT_CHUNK)
        raise UsageError(
            f"The log's tokens are those of the reference {digest}. No chunk size and no precision gives "
            f"this machine that digest (float32 and chunks of {_DEFAULT_CHUNK} give {ours}): instruction "
            "set, torch build or library settings differ, so nothing can be derived bit for bit here. Run "
            "--exact on a machine like the enforcer's, or leave it out to audit with a tolerance."
        )
    return Derivation(digest, rule.dtype, rule.chunk)


def _rule(digest: str) -> Rule | None:
    from ullage.enforce.rederive import find_rule

    return find_rule(digest)


def examine_exactly(
    reader: LogReader,
    header: HeaderPart,
    model: Path,
    draw: tuple[Sample, list[int]],
    derivation: Derivation,
    *,
    progress: Progress,
    threads: int | None = None,
) -> tuple[Examination, Derivation]:
    """Derive the drawn records' transcripts; what differs is among the records' findings.

    `threads` sets torch's for this process, None leaves them. `derivation` is what `check_declared` found.
    """
    sample, drawn = draw
    prompt_tokens, outside, selected = read_records(reader, frozenset(drawn))
    progress("loading the reference", 0, 0)
    import torch

    from ullage.enforce.reference import ChunkedReference
    from ullage.model.stack import stack_digest

    if threads is not None:
        torch.set_num_threads(threads)
    reference = ChunkedReference.load(model, derivation.dtype, derivation.chunk)
    reference.find_batch(_BATCH)
    total, done, audited = sum(len(record.output_ids) for record in selected), 0, []
    for record in selected:
        audited.append(_audited(record, reference, header.profile))
        done += len(record.output_ids)
        progress("deriving transcripts", done, total)
    examination = Examination(
        sample=sample.model_copy(update={"tokens": _tokens(audited)}),
        records=tuple(audited),
        reference={
            "model": reference.identity.digest,
            "dtype": reference.dtype,
            "stack": stack_digest(reference.dtype),
            "digest": reference.digest,
        },
        prompt_tokens=prompt_tokens,
        prompt_tokens_outside=outside,
        drawn=tuple(drawn) if sample.draws is not None else None,
        window=_window(reader, reference),
        unread=tuple(sorted(set(drawn) - {record.counter for record in selected})),
    )
    identical = sum(not record.findings for record in audited)
    return examination, replace(derivation, records=len(audited), identical=identical)


def check_declared(header: HeaderPart, model: Path) -> Derivation:
    """All that can be wrong before weights are loaded. Raises UsageError."""
    get_profile(header.profile)
    check_model(model, header.model_digest)
    return find_derivation(header)


def compare(record: Record, derived: Rederived) -> str | None:
    """What is wrong with a record whose transcript is `derived`, as the end of a sentence; None: nothing.

    A record that is not complete was derived up to where it was cut off (`derive`).
    """
    given, own = record.output_ids, derived.ids
    for place, (token, right) in enumerate(zip(given, own, strict=False)):
        if token != right:
            return (
                f"differs from the reference's transcript at output token {place}: {token} was released "
                f"where the reference has {right}"
            )
    if len(given) > len(own):
        return f"goes on after the reference's transcript, which ends with output token {len(own) - 1}"
    if len(given) < len(own):
        return f"is complete after {len(given)} output tokens, and the reference's transcript has {len(own)}"
    said = record.close.finish_reason if record.close else None
    if _is_complete(record) and said != derived.finish_reason:
        return f"says that it finished for {said!r} where it was {derived.finish_reason!r}"
    return None


def derive(reference: ChunkedReference, profile: str, record: Record) -> Rederived:
    """The reference's transcript for a record; of one that was cut off, no more than was released.

    Raises UsageError for a request that no reference can serve.
    """
    from ullage.enforce.rederive import rederive

    asked = record.open
    room = reference.context_length - len(asked.prompt_ids)
    most = asked.parameters.max_tokens if _is_complete(record) else len(record.output_ids)
    return rederive(
        reference,
        profile,
        asked.prompt_ids,
        seed=asked.seed,
        parameters=parameters_of(record),
        max_tokens=min(most, room),
        stop=asked.parameters.stop,
        draft=record.output_ids,
    )


def _is_complete(record: Record) -> bool:
    return record.close is not None and record.close.outcome == "complete"


def _audited(record: Record, reference: ChunkedReference, profile: str) -> AuditedRecord:
    problems = check_tokens(record, reference.vocabulary_size, reference.context_length)
    scores = None
    if not problems and not record.output_ids and not _is_complete(record):
        scores = _aligned(record, ())  # nothing was released, so nothing has to follow from anything
    elif not problems:
        try:
            derived = derive(reference, profile, record)
        except UsageError as error:
            problems = [f"Record {record.counter} has an output that no reference can have: {error}"]
        else:
            scores = _aligned(record, derived.ids)
            wrong = compare(record, derived)
            problems = [f"Record {record.counter} {wrong}."] if wrong else []
    return AuditedRecord(
        number=record.counter,
        counter=record.counter,
        endpoint=record.open.endpoint,
        outcome=record.close.outcome if record.close else "open",
        prompt_tokens=len(record.open.prompt_ids),
        output_tokens=len(record.output_ids),
        text=reference.tokenizer.decode(record.output_ids) if scores is not None else "",
        scores=scores,
        findings=tuple(problems),
    )


def _aligned(record: Record, derived: Sequence[int]) -> TokenScores:
    """Released tokens beside the derived ones, place by place; no margins, which nothing was compared by."""
    count = len(record.output_ids)
    own = [*derived[:count], *[NOTHING_HERE] * (count - len(derived))]
    return TokenScores(
        token=np.asarray(record.output_ids, dtype=np.int64),
        reference=np.asarray(own, dtype=np.int64),
        margin=np.full(count, np.nan),
        rank=np.full(count, -1, dtype=np.int64),
        entropy=np.full(count, np.nan),
    )


def _tokens(records: Sequence[AuditedRecord]) -> int:
    return sum(record.output_tokens for record in records if record.scores is not None)


def _window(reader: LogReader, reference: ChunkedReference) -> WindowShape:
    records = sorted(reader.records(), key=lambda record: record.counter)
    return WindowShape.of(records, reference.tokenizer)
