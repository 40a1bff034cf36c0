"""Reproduce one answer from its record: what the reference says to the same prompt under the same seed.

The delivered output is a draft: one pass over it gives the reference's own token at every step, and up to
the first step where they differ both have read the same, so nothing needs to be decoded before it. From
there the reference goes on alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ullage.audit.examination import check_model
from ullage.audit.finish import finish_reason
from ullage.audit.recompute import check_tokens, parameters_of
from ullage.errors import MalformedError, UndecidedError
from ullage.log.notes.signed_note import NoteVerifier
from ullage.log.reader import LogReader
from ullage.log.record import Record
from ullage.log.sealed.openers import Opener
from ullage.model.reference import Reference
from ullage.sampling.address import NoiseAddress
from ullage.sampling.profiles import Profile, get_profile


@dataclass(frozen=True)
class Transcript:
    """An output as token ids and text, and why it ended (None: it was cut short)."""

    ids: tuple[int, ...]
    text: str
    finish_reason: str | None


@dataclass(frozen=True)
class Replay:
    """What was delivered, what the reference says, and the first step where they differ."""

    record: int
    delivered: Transcript
    reference: Transcript
    first_difference: int | None
    """Output token from which on they differ; None if the reference reproduces what was delivered."""


def replay(
    log: Path,
    counter: int,
    model: Path,
    *,
    key: NoteVerifier | None = None,
    opener: Opener | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> Replay:
    """Reproduce record `counter` of a log whose checkpoint holds.

    Raises UsageError when there is no such record, or log and model do not go together; IntegrityError when
    the log's entries are not those that were signed; MalformedError when the record's tokens are not the
    model's; UndecidedError when nothing was delivered. `opener` reads the sealed record. `progress` is called
    with the number of reference tokens.
    """
    reader = LogReader.open(log, key, opener)
    record = reader.record(counter)
    if not record.output_ids and (record.close is None or record.close.outcome != "complete"):
        how = "open" if record.close is None else record.close.outcome
        raise UndecidedError(f"Record {counter} has no output ({how}), so there is nothing to reproduce.")
    reader.prove_record(counter)
    profile = get_profile(reader.header.profile)
    check_model(model, reader.header.model_digest)
    reference = Reference.load(model)
    problems = check_tokens(record, reference.vocabulary_size, reference.context_length)
    if problems:
        raise MalformedError(" ".join(problems))
    said = _Decoder(reference, profile, record).run(progress)
    given = record.output_ids
    closed = record.close.finish_reason if record.close else None
    cut_short = record.close is None or record.close.outcome != "complete"
    same = said[: len(given)] == given if cut_short else said == given
    first = None if same else _first_difference(given, said)
    shown = said[: len(given)] if same else said
    decode = reference.tokenizer.decode
    return Replay(
        record=counter,
        delivered=Transcript(given, decode(given), closed),
        reference=Transcript(
            shown, decode(shown), _finish(record, shown, reference) if shown == said else None
        ),
        first_difference=first,
    )


class _Decoder:
    """The reference's own output for one record."""

    def __init__(self, reference: Reference, profile: Profile, record: Record) -> None:
        self._reference, self._profile, self._record = reference, profile, record
        self._parameters = parameters_of(record)

    def run(self, progress: Callable[[int], None]) -> tuple[int, ...]:
        output = self._agreed_prefix()
        while _finish(self._record, output, self._reference) is None:
            # A last token that nobody reads: the logits wanted stand before it.
            output = (*output, self._choose((*output, 0), len(output))[-1])
            progress(len(output))
        return output

    def _agreed_prefix(self) -> tuple[int, ...]:
        """The reference's tokens up to and with the first that differs from the delivered ones."""
        given = self._record.output_ids
        if not given:
            return ()
        own = self._choose(given, 0)
        place = _first_difference(given, own)
        return own if place is None else own[: place + 1]

    def _choose(self, output: tuple[int, ...], first_step: int) -> tuple[int, ...]:
        """The reference's tokens at steps `first_step` … of `output`, each from what stands before it."""
        prompt = self._record.open.prompt_ids
        (logits,) = self._reference.logits([(*prompt, *output)], [len(prompt) + first_step])
        address = NoiseAddress.of_response(self._record.open.seed, len(prompt), len(logits), first_step)
        chosen = self._profile.choose(logits, self._parameters, address)
        return tuple(int(token) for token in chosen)


def _finish(record: Record, output: tuple[int, ...], reference: Reference) -> str | None:
    parameters = record.open.parameters
    return finish_reason(
        output, len(record.open.prompt_ids), parameters.max_tokens, parameters.stop, reference.tokenizer
    )


def _first_difference(one: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    """The first place where two outputs differ, an end included; None if they are equal."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return None if len(one) == len(other) else min(len(one), len(other))
