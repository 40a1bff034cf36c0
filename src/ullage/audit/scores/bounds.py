"""Bounds on covert capacity for anybody's scores: no model and no log, only what a table says.

`docs/formats/scores.md` is the table, `docs/proofs/covert-capacity.md` what the bounds rest on; section 9 has
the codes that need no calibration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bounds.betting import (
    UNIFORM_SHARE_BITS,
    message_shares,
    message_weights,
    mixed_codelength,
    upper_bound_at_end,
)
from ullage.audit.bounds.universal_code import either_code, gaps_code, matches_code
from ullage.audit.bounds.window import DEFAULT_TARGET, Covert, CovertFigures, advice_on
from ullage.audit.scores.file import ClassCounts, ScoresTable
from ullage.errors import UndecidedError, UsageError

CHANNELS: Final = "the choice of token values"


class Code(StrEnum):
    """Where codelengths come from."""

    GIVEN = "given"
    GAPS = "gaps"
    MATCHES = "matches"


@dataclass(frozen=True)
class Window:
    """What a sample was drawn from: all messages, and all of their tokens."""

    messages: int
    tokens: int


@dataclass(frozen=True)
class ScoreBounds:
    """The figures, and the codes that they come from."""

    figures: CovertFigures
    codes: tuple[Code, ...]


def bound_scores(
    table: ScoresTable,
    vocabulary_size: int,
    *,
    window: Window | None = None,
    code: Code | None = None,
    confidence: float = 0.99,
    target: float = DEFAULT_TARGET,
) -> ScoreBounds:
    """Upper limits from a table of all messages of a window, or (`window`) of some that were drawn.

    `code` None takes the codelengths of the file if it has any, else the mixture of all codes that its
    columns allow. Raises UsageError for a code that they do not allow, UndecidedError for no tokens.
    """
    if not 0 < confidence < 1 or not 0 < target < 1:
        raise UsageError("A confidence and a target lie between 0 and 1.")
    if not table.tokens.sum():
        raise UndecidedError("The file has no tokens, so there is no share of them to state.")
    codes = _codes(table, code)
    if window is not None:
        if codes != (Code.GIVEN,):
            raise UsageError(
                "A code without a calibration is for a whole window, not for messages that were drawn: give "
                "each token's codelength in the column 'codelength'."
            )
        return ScoreBounds(_drawn(table, vocabulary_size, window, confidence, target), codes)
    return ScoreBounds(_whole(table, vocabulary_size, codes, target), codes)


def _codes(table: ScoresTable, wanted: Code | None) -> tuple[Code, ...]:
    able = {
        Code.GIVEN: "codelength" in table.columns,
        Code.GAPS: table.has_gaps,
        Code.MATCHES: table.has_matches,
    }
    if wanted is not None:
        if not able[wanted]:
            needed = {
                Code.GIVEN: "a column 'codelength'",
                Code.GAPS: "columns 'gap' and 'rank'",
                Code.MATCHES: "columns 'token' and 'reference', or 'rank', or 'margin'",
            }
            raise UsageError(f"The code '{wanted}' takes {needed[wanted]}; the file has none.")
        return (wanted,)
    if able[Code.GIVEN]:
        return (Code.GIVEN,)
    found = tuple(one for one in (Code.GAPS, Code.MATCHES) if able[one])
    if not found:
        raise UsageError(
            "The file says nothing about its tokens: it takes a column 'codelength', or 'token' and "
            "'reference', or 'rank', or 'margin' (docs/formats/scores.md)."
        )
    return found


def _whole(table: ScoresTable, vocabulary_size: int, codes: tuple[Code, ...], target: float) -> CovertFigures:
    everything = np.ones(len(table.tokens), np.bool_)
    kinds = np.array(table.classes)
    groups = {name: kinds == name for name in table.by_class}

    def figure(members: NDArray[np.bool_], counts: list[ClassCounts]) -> Covert:
        if codes == (Code.GIVEN,):
            lengths = table.tokens[members]
            bits = float(mixed_codelength(table.codelength[members], lengths, vocabulary_size).sum())
        else:
            bits = either_code([_universal(one, counts, table, vocabulary_size) for one in codes])
        return _covert(table, members, vocabulary_size, bits)

    whole = figure(everything, list(table.by_class.values()))
    worst = {name: figure(members, [table.by_class[name]]) for name, members in groups.items()}
    name = max(worst, key=lambda one: worst[one].fraction)
    advice = None
    if whole.fraction > target:
        advice = advice_on(whole, 0.0, 0.0, sampled=False, target=target, confidence=1.0)
    return CovertFigures(
        window=whole, worst=worst[name], worst_class=name or "the only one", classes=len(groups),
        confidence=None, draws=None, ending_bits=0.0, advice=advice, channels=CHANNELS,
    )  # fmt: skip


def _universal(code: Code, counts: list[ClassCounts], table: ScoresTable, vocabulary_size: int) -> float:
    if code is Code.GAPS:
        return gaps_code(np.sum([one.gaps for one in counts], axis=0), vocabulary_size)
    return matches_code(
        sum(one.tokens for one in counts),
        sum(one.near for one in counts),
        sum(one.far for one in counts),
        vocabulary_size,
        ranked="rank" in table.columns,
    )


def _covert(table: ScoresTable, members: NDArray[np.bool_], vocabulary_size: int, bits: float) -> Covert:
    tokens = int(table.tokens[members].sum())
    text_bits = 8.0 * float(table.text_bytes[members].sum())
    return Covert(bits, tokens, tokens * math.log2(vocabulary_size), text_bits, int(members.sum()))


def _drawn(
    table: ScoresTable, vocabulary_size: int, window: Window, confidence: float, target: float
) -> CovertFigures:
    """By betting: the draws were in proportion to n log2 V + 20, with replacement."""
    _check_window(table, window)
    lengths = table.tokens
    weights = message_weights(lengths, vocabulary_size)
    mixed = mixed_codelength(table.codelength, lengths, vocabulary_size)
    values = np.repeat(message_shares(mixed, weights), table.draws)
    capacity = window.tokens * math.log2(vocabulary_size)
    # Weights are rounded up to units of 2^-20 bit, so the window's may be that much larger a message.
    size = capacity + window.messages * (UNIFORM_SHARE_BITS + 2.0**-20)
    share = upper_bound_at_end(values, 1 - confidence)
    whole = Covert(share * size, window.tokens, capacity, math.nan, window.messages)
    advice = None
    if whole.fraction > target:
        available = target * capacity / size
        advice = advice_on(
            whole, float(values.mean()), available, sampled=True, target=target, confidence=confidence
        )
    return CovertFigures(
        window=whole, worst=whole, worst_class="classes are not told apart in a sample", classes=1,
        confidence=confidence, draws=len(values), ending_bits=0.0, advice=advice, channels=CHANNELS,
    )  # fmt: skip


def _check_window(table: ScoresTable, window: Window) -> None:
    if window.messages < len(table.tokens) or window.tokens < int(table.tokens.sum()):
        raise UsageError(
            f"The file has {int(table.tokens.sum())} tokens of {len(table.tokens)} messages, more than the "
            f"window that they were drawn from ({window.tokens} of {window.messages})."
        )
    if int(table.draws.sum()) > 1 << 26:
        raise UsageError("The file says that more than 2^26 draws were made.")
