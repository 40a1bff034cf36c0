"""Select records of a verified log and recompute them; no judgement yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ullage import __version__
from ullage.audit.admissible.noise_error import noise_error
from ullage.audit.admissible.walk import RecordWalks, WalkPlan, walk_all
from ullage.audit.bounds.betting import message_weights
from ullage.audit.bounds.window import WindowShape
from ullage.audit.bundle.envelope import Sample
from ullage.audit.bundle.evidence import AuditedRecord, TokenScores
from ullage.audit.cluster.ray_cluster import RayOptions
from ullage.audit.cluster.ray_reference import RayReference, on_ray
from ullage.audit.coding import TokenCoder
from ullage.audit.engine.reference import EngineReference, connected
from ullage.audit.finish import check_finish
from ullage.audit.recompute import check_tokens, recompute
from ullage.audit.seeds import SeedCheck
from ullage.audit.selection import draw_proportional, draw_uniform, find_window, window_key, window_of_log
from ullage.audit.unfinished import Unfinished, recompute_the_rest
from ullage.errors import UsageError
from ullage.log.entries import CloseEntry, OpenEntry
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.reader import LogReader
from ullage.log.record import HeaderPart, Record
from ullage.model.identity import identify
from ullage.sampling.profiles import get_profile

if TYPE_CHECKING:
    from ullage.model.reference import Reference

_OUTSIDE_SOURCES = ("client", "released")

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is (0 when unknown)."""


@dataclass(frozen=True)
class Examination:
    """The audited records, how they were drawn, what they were held against."""

    sample: Sample
    records: tuple[AuditedRecord, ...] = ()
    reference: dict[str, str] | None = None
    """Digest of the model, precision and stack; None if no reference was run."""
    prompt_tokens: int = 0
    """Over all records of the log that can be read, audited or not."""
    prompt_tokens_outside: int = 0
    drawn: tuple[int, ...] | None = None
    """Counters in the order of drawing with replacement; None for other schemes."""
    walks: tuple[RecordWalks, ...] = ()
    """Walks through the admissible sets, if they were asked for."""
    window: WindowShape | None = None
    """All records of the log that can be read; None for an audit that says nothing about bits."""
    unread: tuple[int, ...] = ()
    """Counters of the drawn records that cannot be read: forgotten, or not opened to this verifier."""
    notes: tuple[str, ...] = ()
    """What else the figures rest on."""
    remarks: tuple[str, ...] = ()
    """How they were come by, where that changes none of them."""


def select(
    header: HeaderPart, checkpoint: Checkpoint, population: int, size: int | None, secret: bytes | None
) -> tuple[Sample, list[int]]:
    """Draw `size` of the counters 0 … population - 1 (None: all) with the verifier's selection key.

    Counters have no gaps: that is part of the log's integrity. Raises UsageError without the key, or when
    the log commits to another one.
    """
    everything = Sample(
        scheme="all",
        population=population,
        records=population,
        tokens=0,
        tree_size=checkpoint.size,
        selection_commitment=header.selection_commitment,
    )
    if size is None or size >= population:
        return everything, list(range(population))
    if secret is None:
        raise UsageError(
            "A sample is drawn with the verifier's selection key: give --keys, or audit everything with "
            "--sample all."
        )
    window = _committed_window(secret, header)
    key = window_key(secret, window)
    drawn = draw_uniform(key, checkpoint.root, population, size)
    changes = {
        "scheme": "uniform-without-replacement",
        "records": len(drawn),
        "window": str(window),
        "selection_key": key.hex(),
    }
    return everything.model_copy(update=changes), drawn


def select_proportional(
    reader: LogReader,
    header: HeaderPart,
    checkpoint: Checkpoint,
    *,
    draws: int,
    secret: bytes | None,
    vocabulary_size: int,
) -> tuple[Sample, list[int]]:
    """Draw `draws` counters with replacement, each in proportion to n log2 V + 20 (`message_weights`).

    Raises UsageError without the key, when the log commits to another one, or has no records.
    """
    if secret is None:
        raise UsageError("Draws are made with the verifier's selection key: give --keys.")
    lengths = _output_lengths(reader)
    if not lengths:
        raise UsageError("The log has no records to draw from.")
    weights = message_weights(np.array([lengths[one] for one in range(len(lengths))]), vocabulary_size)
    window = _committed_window(secret, header)
    key = window_key(secret, window)
    drawn = draw_proportional(key, checkpoint.root, weights.tolist(), draws)
    sample = Sample(
        scheme="proportional-with-replacement",
        population=len(lengths),
        records=len(set(drawn)),
        tokens=0,
        tree_size=checkpoint.size,
        draws=draws,
        window=str(window),
        selection_key=key.hex(),
        selection_commitment=header.selection_commitment,
    )
    return sample, drawn


def check_model(folder: Path, declared: str) -> None:
    """Raise UsageError unless the folder holds the model that a log declares."""
    found = identify(folder).digest
    if found != declared:
        raise UsageError(
            f"The log declares the model {declared}, and {folder} holds {found}; give the declared model's "
            "folder with --model."
        )


def examine(
    reader: LogReader,
    header: HeaderPart,
    model: Path,
    draw: tuple[Sample, list[int]],
    progress: Progress,
    *,
    entropy: bool = False,
    coder: TokenCoder | None = None,
    seeds: SeedCheck | None = None,
    walk: WalkPlan | None = None,
    engine: str | None = None,
    ray: RayOptions | None = None,
    kept: Unfinished | None = None,
) -> Examination:
    """Recompute the records of a log that verified, those that `select` drew; `walk` from some of them.

    With `engine`, the address of one, logits come from there, and `entropy`, `coder` and `walk` are left out;
    with `ray` a cluster recomputes, and `walk` is left out. Without both, `kept` is where batches that are
    done are found and left.

    Raises UsageError for an unknown profile or another model than the declared one, before the weights are
    loaded. What is wrong with a record is among its findings.
    """
    sample, drawn = draw
    profile = get_profile(header.profile)
    check_model(model, header.model_digest)
    if coder is not None:
        noise_error(header.profile, np.zeros(1))
    prompt_tokens, outside, selected = read_records(reader, frozenset(drawn))
    readable = {record.counter for record in selected}
    progress("loading the reference", 0, 0)
    with _reference(model, engine, ray) as reference:
        problems = {
            record.counter: check_tokens(record, reference.vocabulary_size, reference.context_length)
            for record in selected
        }
        sound = [record for record in selected if not problems[record.counter]]
        total = sum(len(record.output_ids) for record in sound)

        def count(done: int) -> None:
            progress("recomputing tokens", done, total)

        walks: tuple[RecordWalks, ...] = ()
        remarks: tuple[str, ...] = ()
        if isinstance(reference, EngineReference):
            found = reference.recompute(profile, sound, count)
        elif isinstance(reference, RayReference):
            found = reference.recompute(profile, sound, count, entropy=entropy, coder=coder)
            remarks = (reference.remark,)
        else:
            if kept is None:
                found = recompute(reference, profile, sound, count, entropy=entropy, coder=coder)
            else:
                here = kept.under(*_numerics(reference), profile.name, str(entropy))
                found, before = recompute_the_rest(
                    reference, profile, sound, count, here, entropy=entropy, coder=coder
                )
                remarks = (f"{before} of {total} tokens had been recomputed before.",) if before else ()
            if walk is not None:
                walks = walk_all(reference, profile, sound, walk, lambda *step: progress("walking", *step))
    scores = {record.counter: score for record, score in zip(sound, found, strict=True)}
    return Examination(
        sample=sample.model_copy(update={"tokens": total}),
        records=tuple(
            _audited(record, reference, problems[record.counter], scores.get(record.counter), seeds)
            for record in selected
        ),
        reference={
            "model": reference.identity.digest,
            "dtype": reference.dtype,
            "stack": reference.stack_digest,
        },
        prompt_tokens=prompt_tokens,
        prompt_tokens_outside=outside,
        drawn=tuple(drawn) if sample.draws is not None else None,
        walks=walks,
        window=None if coder is None else _window(reader, reference),
        unread=tuple(sorted(set(drawn) - readable)),
        notes=(reference.note,) if isinstance(reference, EngineReference) else (),
        remarks=remarks,
    )


@contextmanager
def _reference(
    model: Path, engine: str | None, ray: RayOptions | None
) -> Iterator[Reference | EngineReference | RayReference]:
    if engine is not None:
        with connected(engine, model) as distant:
            yield distant
        return
    if ray is not None:
        with on_ray(ray, model) as spread:
            yield spread
        return
    # Torch takes seconds to import: only now, so that a request that cannot be met is refused at once.
    from ullage.model.reference import Reference

    yield Reference.load(model)


def _numerics(reference: Reference) -> tuple[str, ...]:
    """All that decides the bits of a reference's logits."""
    import torch

    threads = str(torch.get_num_threads())
    return __version__, reference.identity.digest, reference.dtype, reference.stack_digest, threads


def _committed_window(secret: bytes, header: HeaderPart) -> int:
    if header.selection_commitment is None:
        return window_of_log(header.log_id)
    window = find_window(secret, header.selection_commitment, header.log_id)
    if window is None:
        raise UsageError(
            "The log commits to another selection key than the one in --keys; give the key that it commits "
            "to, or audit everything with --sample all."
        )
    return window


def _output_lengths(reader: LogReader) -> dict[int, int]:
    """Output tokens of every record by its counter: public, but for records without a close."""
    lengths: dict[int, int] = {}
    unfinished: set[int] = set()
    for entry in reader.entries():
        if isinstance(entry, OpenEntry):
            unfinished.add(entry.counter)
        elif isinstance(entry, CloseEntry):
            unfinished.discard(entry.counter)
            lengths[entry.counter] = entry.output_tokens
    if unfinished:  # in one reading: a busy tap's log ends with as many as were in flight
        for record in reader.all_records(only=frozenset(unfinished)):
            if not isinstance(record, Record):
                raise UsageError(f"Record {record.counter} cannot be read ({record.reason.value}).")
            lengths[record.counter] = len(record.output_ids)
    return lengths


def read_records(reader: LogReader, drawn: frozenset[int]) -> tuple[int, int, list[Record]]:
    """Prompt tokens of all readable records, how many came from outside, and the drawn ones by counter."""
    total = outside = 0
    selected = []
    for record in reader.records():
        total += len(record.open.prompt_ids)
        outside += sum(length for length, source in record.open.prompt_sources if source in _OUTSIDE_SOURCES)
        if record.counter in drawn:
            selected.append(record)
    return total, outside, sorted(selected, key=lambda record: record.counter)


def _window(reader: LogReader, reference: Reference | EngineReference | RayReference) -> WindowShape:
    records = sorted(reader.records(), key=lambda record: record.counter)
    return WindowShape.of(records, reference.tokenizer)


def _audited(
    record: Record,
    reference: Reference | EngineReference | RayReference,
    problems: list[str],
    scores: TokenScores | None,
    seeds: SeedCheck | None,
) -> AuditedRecord:
    if scores is not None:
        problems = check_finish(record, reference.tokenizer)
    if seeds is not None:
        problems = [*problems, *seeds.problems(record)]
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
