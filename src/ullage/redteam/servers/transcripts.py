"""What the accomplice outside works from: a log's transcripts and the declared model, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ullage.errors import UsageError
from ullage.log.sealed.openers import Opener
from ullage.log.store import LogReader
from ullage.model.reference import Reference
from ullage.redteam.adversary import Recovery, Transcript
from ullage.redteam.registry import get_adversary
from ullage.sampling.parameters import SamplingParameters


def read_transcripts(log: Path, opener: Opener | None) -> Iterator[Transcript]:
    """All that was said according to a log, whether its checkpoint covers it or not. Raises as LogReader.

    The accomplice was told what it reads here; `opener` stands for that.
    """
    for record in LogReader.open(log, opener=opener).records(include_uncovered=True):
        yield Transcript(
            list(record.open.prompt_ids),
            list(record.output_ids),
            SamplingParameters.from_record(record.open.parameters.model_dump()),
        )


def recover_from_log(log: Path, model_folder: Path, opener: Opener | None, name: str = "payload") -> Recovery:
    """Decode what the adversary `name` hid in a log. Raises UsageError for an adversary that hides nothing,
    and for a model that is not the one the log declares."""
    adversary = get_adversary(name)
    if adversary.recover is None:
        raise UsageError(f"The adversary '{name}' hides nothing, so there is nothing to recover.")
    declared = LogReader.open(log).header.model_digest
    reference = Reference.load(model_folder)  # float32, as the sender computes
    if reference.identity.digest != declared:
        raise UsageError(
            f"The log was made with the model {declared}, {model_folder} is {reference.identity.digest}; "
            "give the declared one with --model."
        )
    return adversary.recover(reference.logits, read_transcripts(log, opener))
