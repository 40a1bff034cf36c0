"""What the reference would have said: one teacher-forced pass over prompt and output, and the scores.

For each output token the reference's logits z are computed from the tokens that were really there before
it, the sampler profile adds the noise of the record's seed, and the delivered token is held against the
winner. The margin is T * (max of (z/T + g) over the filtered set - (z/T + g) of the delivered token), in
raw logits: 0 for the reference's own token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bundle.evidence import TokenScores
from ullage.audit.coding import TokenCoder
from ullage.log.record import Record
from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import Profile

if TYPE_CHECKING:
    from ullage.model.reference import LogitsBlock


class LogitsSource(Protocol):
    """What is needed of a reference."""

    vocabulary_size: int
    context_length: int

    def iter_logits(
        self, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int]
    ) -> Iterator[LogitsBlock]: ...


def parameters_of(record: Record) -> SamplingParameters:
    """The record's sampling parameters. Raises MalformedError when no sampler takes them."""
    return SamplingParameters.from_record(record.open.parameters.model_dump())


def by_parameters(records: Sequence[Record]) -> dict[SamplingParameters, list[int]]:
    """Places of the records by their sampling parameters: only equal ones are scored together."""
    groups: defaultdict[SamplingParameters, list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        groups[parameters_of(record)].append(place)
    return dict(groups)


def check_tokens(record: Record, vocabulary_size: int, context_length: int) -> list[str]:
    """Sentences on why a record's output cannot be the declared model's, whatever was sampled."""
    name = f"Record {record.counter}"
    prompt, output = record.open.prompt_ids, record.output_ids
    if not output:
        return []
    if not prompt:
        return [f"{name} has an output and no prompt, so there is nothing that it could follow from."]
    findings = []
    for what, ids in (("prompt", prompt), ("output", output)):
        place = next((place for place, token in enumerate(ids) if token >= vocabulary_size), None)
        if place is not None:
            findings.append(
                f"{name} has token {ids[place]} at {what} token {place}, outside the model's vocabulary "
                f"of {vocabulary_size}."
            )
    if len(prompt) + len(output) > context_length:
        findings.append(
            f"{name} has {len(prompt)} + {len(output)} tokens, more than the model's context of "
            f"{context_length}."
        )
    return findings


def recompute(
    reference: LogitsSource,
    profile: Profile,
    records: Sequence[Record],
    progress: Callable[[int], None] = lambda tokens: None,
    *,
    entropy: bool = False,
    coder: TokenCoder | None = None,
) -> list[TokenScores]:
    """The scores of each record's output, in the order of `records`.

    All of them must have passed `check_tokens`. `progress` is called with the number of tokens done.
    `entropy` asks for the entropy of each distribution, which takes a softmax a token; `coder` for the
    codelength of each token and all else that follows from a calibration.
    """
    scores = [_empty_scores(record.output_ids, coder) for record in records]
    done = 0
    for block in score_blocks(reference, records):
        if coder is None:
            codes = None
            found = profile.score(
                block.logits, block.claimed, block.parameters, block.address, entropy=entropy
            )
        else:
            found, codes = coder.score(
                profile, block.logits, block.claimed, block.parameters, block.address, entropy=entropy
            )
        for place, there, here in block.runs:
            target = scores[place]
            target.reference[there] = found.reference[here]
            target.margin[there] = found.margin[here]
            target.rank[there] = found.rank[here]
            target.entropy[there] = found.entropy[here]
            if codes is not None and target.codes is not None:
                target.codes.put(there, codes, here)
        done += len(block.logits)
        progress(done)
    return scores


@dataclass(frozen=True)
class ScoreBlock:
    """Consecutive runs of output tokens of some records, with all that scoring takes.

    runs: (place of the record, its tokens, the block's rows).
    """

    parameters: SamplingParameters
    logits: NDArray[np.float32]
    claimed: NDArray[np.int64]
    address: NoiseAddress
    runs: tuple[tuple[int, slice, slice], ...]


def score_blocks(reference: LogitsSource, records: Sequence[Record]) -> Iterator[ScoreBlock]:
    """The output tokens of all records, each once, in blocks of equal sampling parameters."""
    for parameters, places in by_parameters(records).items():
        members = [records[place] for place in places]
        for block in reference.iter_logits(
            [(*record.open.prompt_ids, *record.output_ids) for record in members],
            [len(record.open.prompt_ids) for record in members],
        ):
            claimed, addresses, runs, start = [], [], [], 0
            for rows in block.rows:
                record = members[rows.sequence]
                there = slice(rows.first_step, rows.first_step + rows.count)
                runs.append((places[rows.sequence], there, slice(start, start + rows.count)))
                claimed.append(np.asarray(record.output_ids[there], dtype=np.int64))
                addresses.append(
                    NoiseAddress.of_response(
                        record.open.seed, len(record.open.prompt_ids), rows.count, rows.first_step
                    )
                )
                start += rows.count
            yield ScoreBlock(
                parameters,
                block.logits,
                np.concatenate(claimed),
                NoiseAddress.concatenate(addresses),
                tuple(runs),
            )


def _empty_scores(output_ids: Sequence[int], coder: TokenCoder | None) -> TokenScores:
    token: NDArray[np.int64] = np.asarray(output_ids, dtype=np.int64)
    count = len(token)
    # Values that no recomputation gives: a row that was left out cannot pass for an audited one.
    return TokenScores(
        token=token,
        reference=np.full(count, -1, dtype=np.int64),
        margin=np.full(count, np.nan),
        rank=np.full(count, -1, dtype=np.int64),
        entropy=np.full(count, np.nan),
        codes=None if coder is None else coder.empty(count),
    )
