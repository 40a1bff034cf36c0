"""Uniform walks through the admissible sets: what an attacker who stays inside them gets, played out.

From a record's prompt and seed, each token is drawn uniformly from A_t(b) after what was drawn before. The
draw reads log2 |A_t| bits of payload, so the sum over a walk is what an arithmetic coder carries in it, up to
2 bits a message (`docs/proofs/covert-capacity.md`, section 5). Several walks from one prompt give a count.

The walk decodes step by step, the audit reads whole messages: their logits differ in the last bits. So each
walk is recomputed as the audit would read it, and one that then has a token outside counts as 0 bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ullage.audit.admissible.profile_sets import profile_sets
from ullage.audit.bounds.window import class_of
from ullage.audit.recompute import parameters_of
from ullage.log.record import Record
from ullage.sampling.address import NoiseAddress
from ullage.sampling.greedy import Greedy
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.profiles import Profile
from ullage.sampling.transcript import Transcript

if TYPE_CHECKING:
    from ullage.model.reference import Reference

WALKS_EACH: Final = 8
_DOMAIN: Final = b"ullage/walk/v1"


@dataclass(frozen=True)
class RecordWalks:
    """Walks from one record's prompt and seed; arrays are (W,)."""

    record: int
    prompt_class: str
    bits: NDArray[np.float64]
    """Sum of log2 |A_t|; 0 for a walk that the audit would find outside somewhere."""
    log2_products: NDArray[np.float64]
    """The same sums whatever the audit would find: the sets that the walk went through."""
    tokens: NDArray[np.int64]
    text_bytes: NDArray[np.int64]

    @property
    def refused(self) -> int:
        """Walks that the audit would find outside."""
        return int(np.count_nonzero((self.bits == 0) & (self.log2_products > 0)))


@dataclass(frozen=True)
class WalkPlan:
    """Walks from `count` of the audited records, drawn by `root`; `bound` in raw logits."""

    count: int
    root: bytes
    bound: float


def is_walkable(profile: Profile) -> bool:
    """Whether the profile's sets are known exactly, so that a walk can follow them."""
    return isinstance(profile, GumbelProfile | Greedy)


def choose_records(records: Sequence[Record], plan: WalkPlan) -> list[Record]:
    """The records to walk from, by a hash of the log's root: nobody's choice. Only those with output."""
    able = [record for record in records if record.output_ids and record.open.prompt_ids]

    def rank(record: Record) -> bytes:
        return hashlib.sha256(_DOMAIN + plan.root + record.counter.to_bytes(8, "big")).digest()

    return sorted(sorted(able, key=rank)[: plan.count], key=lambda record: record.counter)


def walk_all(
    reference: Reference,
    profile: Profile,
    records: Sequence[Record],
    plan: WalkPlan,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[RecordWalks, ...]:
    """`WALKS_EACH` walks from each chosen record, the same in every run; `progress` takes records."""
    chosen, found = choose_records(records, plan), []
    for done, record in enumerate(chosen):
        progress(done, len(chosen))
        generator = np.random.default_rng([record.open.seed, record.counter])
        found.append(walk(reference, profile, record, plan.bound, walks=WALKS_EACH, generator=generator))
    return tuple(found)


def walk(
    reference: Reference,
    profile: Profile,
    record: Record,
    bound: float,
    *,
    walks: int,
    generator: np.random.Generator,
) -> RecordWalks:
    """Walks from one record's prompt, each to the end that the ending rule gives it."""
    room = reference.context_length - len(record.open.prompt_ids)
    limit = min(record.open.parameters.max_tokens, room)
    transcripts = [Transcript(reference.tokenizer, record.open.parameters.stop, limit) for _ in range(walks)]
    decoder = _Decoder(reference.model, record.open.prompt_ids, walks)
    products, last = np.zeros(walks), np.zeros(walks, np.int64)
    for step in range(limit):
        logits = decoder.next(last if step else None)
        address = _address(record, walks, step)
        sets = profile_sets(profile, logits, parameters_of(record), address, bound)
        for number, transcript in enumerate(transcripts):
            members = sets.row(number)
            last[number] = members[generator.integers(len(members))]
            if transcript.finish_reason is None:
                products[number] += np.log2(len(members))
                transcript.feed((int(last[number]),))
        if all(transcript.finish_reason is not None for transcript in transcripts):
            break
    outputs = [transcript.ids for transcript in transcripts]
    inside = _inside(reference, profile, record, outputs, bound)
    return RecordWalks(
        record=record.counter,
        prompt_class=class_of(record),
        bits=np.where(inside, products, 0.0),
        log2_products=products,
        tokens=np.array([len(output) for output in outputs], np.int64),
        text_bytes=np.array(
            [len(reference.tokenizer.decode(output).encode("utf-8", "replace")) for output in outputs],
            np.int64,
        ),
    )


def _inside(
    reference: Reference, profile: Profile, record: Record, outputs: Sequence[Sequence[int]], bound: float
) -> NDArray[np.bool_]:
    """Whether the audit finds each of these outputs (W,) to the record's prompt inside all its sets."""
    prompt = record.open.prompt_ids
    inside = np.ones(len(outputs), np.bool_)
    for number, logits in enumerate(
        reference.logits([(*prompt, *output) for output in outputs], [len(prompt)] * len(outputs))
    ):
        address = NoiseAddress.of_response(record.open.seed, len(prompt), len(logits))
        sets = profile_sets(profile, logits, parameters_of(record), address, bound)
        inside[number] = all(token in sets.row(step).tolist() for step, token in enumerate(outputs[number]))
    return inside


def _address(record: Record, walks: int, step: int) -> NoiseAddress:
    position = len(record.open.prompt_ids) - 1 + step
    return NoiseAddress(
        np.full(walks, record.open.seed, np.uint64), np.full(walks, position), np.full(walks, step)
    )


class _Decoder:
    """Several continuations of one prompt, a token each a step."""

    def __init__(self, model: Any, prompt_ids: Sequence[int], rows: int) -> None:
        self._model = model
        self._prompt = [list(prompt_ids)] * rows
        self._cache: Any = None

    def next(self, tokens: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """Logits (W, V) after these tokens (W,); after the prompt for None, at the first call."""
        import torch

        from ullage.model.forward import logits_at

        fed = torch.tensor(self._prompt) if tokens is None else torch.from_numpy(tokens.copy())[:, None]
        if self._cache is None:
            from transformers import DynamicCache

            self._cache = DynamicCache(config=self._model.config)
        rows = torch.arange(len(fed))
        places = torch.full_like(rows, fed.shape[1] - 1)
        with torch.inference_mode():
            logits = logits_at(self._model, fed, rows, places, past_key_values=self._cache, use_cache=True)
        found: NDArray[np.float32] = logits.numpy()
        return found
