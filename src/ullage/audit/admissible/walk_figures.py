"""Path figure, walk and count of an audit: each a token, for the window and for the worst class of prompts.

None is an upper bound; `docs/proofs/covert-capacity.md`, section 5, says what each is. All are ratios of sums
over records, which are the clusters of the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ullage.audit.admissible.walk import RecordWalks
from ullage.audit.bounds.capacity import (
    ClusteredRatio,
    admissible_path_capacity,
    bootstrap_ratio,
    knuth_count,
)
from ullage.errors import UndecidedError

CONFIDENCE = 0.95
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RecordBits:
    """Bits of some records, one row a record, with what to hold them against. Arrays are (N,)."""

    bits: Floats
    tokens: Floats
    text_bits: Floats
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """Bits a token with an interval, and the same against log2 V and against the text's UTF-8 bits."""

    per_token: ClusteredRatio
    per_text_bit: ClusteredRatio | None
    """None where the tokens make no text."""


@dataclass(frozen=True)
class Figures:
    """One figure for all records and for the class with the largest one."""

    all: Figure
    worst: Figure | None
    """None when no class has two records."""
    worst_class: str
    classes: int


def figures(rows: RecordBits) -> Figures:
    """The mean over all records and over each class of at least two; classes share the error.

    Raises UndecidedError for fewer than two records or no tokens.
    """
    whole = _figure(rows, np.ones(len(rows.bits), np.bool_), CONFIDENCE)
    named = np.array(rows.classes)
    groups = {name: named == name for name in sorted(set(rows.classes))}
    groups = {
        name: here for name, here in groups.items() if np.count_nonzero(here) > 1 and rows.tokens[here].sum()
    }
    level = 1 - (1 - CONFIDENCE) / max(len(groups), 1)
    found = {name: _figure(rows, here, level) for name, here in groups.items()}
    worst = max(found, key=lambda name: found[name].per_token.value, default="")
    return Figures(whole, found.get(worst), worst, len(found))


def _figure(rows: RecordBits, here: NDArray[np.bool_], confidence: float) -> Figure:
    clusters = np.arange(np.count_nonzero(here))
    per_token = bootstrap_ratio(rows.bits[here], rows.tokens[here], clusters, confidence)
    per_text_bit = None
    if rows.text_bits[here].sum() > 0:
        per_text_bit = bootstrap_ratio(rows.bits[here], rows.text_bits[here], clusters, confidence)
    return Figure(per_token, per_text_bit)


def path_bits(rows: RecordBits, limit: float, vocabulary_size: int) -> RecordBits:
    """C(b, K) from each record's sum of log2 |A_t|; the rule tolerates `limit` outside, at any rank."""
    beside = admissible_path_capacity(0.0, limit, 1.0, 1, vocabulary_size)
    return replace(rows, bits=rows.bits + beside * rows.tokens)


def walk_bits(walks: Sequence[RecordWalks]) -> RecordBits:
    """What the walks carried, the mean over those of each record."""
    return RecordBits(
        bits=np.array([walk.bits.mean() for walk in walks]),
        tokens=np.array([walk.tokens.mean() for walk in walks]),
        text_bits=np.array([8.0 * walk.text_bytes.mean() for walk in walks]),
        classes=tuple(walk.prompt_class for walk in walks),
    )


@dataclass(frozen=True)
class Trust:
    """How far a count's logarithm can be trusted: the least over records."""

    effective_walks: float
    largest_share: float


def count_bits(walks: Sequence[RecordWalks]) -> tuple[RecordBits, Trust]:
    """Knuth's estimate of log2 of the number of transcripts of each record."""
    counts = [knuth_count(walk.log2_products) for walk in walks]
    if not counts:
        raise UndecidedError("A count takes at least one walk.")
    rows = replace(walk_bits(walks), bits=np.array([count.log2_count for count in counts]))
    return rows, Trust(
        effective_walks=min(count.effective_walks for count in counts),
        largest_share=max(count.largest_share for count in counts),
    )


def log2_shares(ratio: ClusteredRatio, vocabulary_size: int) -> ClusteredRatio:
    """Bits a token as a share of log2 V."""
    width = math.log2(vocabulary_size)
    return replace(ratio, value=ratio.value / width, low=ratio.low / width, high=ratio.high / width)
