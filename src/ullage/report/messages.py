"""Audited messages packed into a page: all of them where they fit, else those that say most.

A pack is JSON, compressed with gzip, in base64; a browser unpacks it without a network. A million tokens
come to about 2 MB.

    {"words": [text, …],                     every token text that occurs, once
     "messages": [[record, outcome, prompt, [word, …], [[position, word, margin, rank, bits], …],
                   [[position, admissible], …]], …],
     "admissible": bool}                     whether admissible sets were counted at all

In a message's second list are its mismatches: what the reference would have said, the logits by which the
delivered token lost (null: outside the filters, or only tokens were compared), its rank (-1: unknown) and its
codelength in bits (null: unknown); in the third the positions whose admissible set has not just one token.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ullage.report.token_table import TokenTable

TextOf = Callable[[int], str]
_MOST_CELLS = 20_000
"""Tokens of the message that is laid out without a script."""
_CODES_A_TOKEN = 3.0  # base64 characters a token, about, from which the number of messages is guessed


@dataclass(frozen=True)
class Pack:
    """Messages as a page holds them."""

    data: str
    shown: int
    available: int
    first: Message | None

    @property
    def is_whole(self) -> bool:
        return self.shown == self.available


@dataclass(frozen=True)
class Cell:
    """One delivered token. `margin` is None outside the filters, or where only tokens were compared."""

    text: str
    reference: str
    is_mismatch: bool
    margin: float | None

    @property
    def shade(self) -> int:
        """0 for the reference's own token, then 1 (a near tie) to 5 (far off, or outside the filters)."""
        if not self.is_mismatch:
            return 0
        return 5 if self.margin is None else 1 + min(4, int(4 * math.sqrt(min(1.0, self.margin / 4))))

    @property
    def explanation(self) -> str:
        if not self.is_mismatch:
            return "the reference's own token"
        if self.margin is None:
            return f"the reference says {self.reference!r}; no finite margin"
        return f"{self.margin:.3f} logits behind {self.reference!r}, the reference's token"


@dataclass(frozen=True)
class Message:
    """One audited answer, token by token."""

    record: int
    prompt: str
    cells: tuple[Cell, ...]
    tokens: int
    """Of the whole answer, of which the cells are the beginning."""
    mismatches: int

    @property
    def left_out(self) -> int:
        return self.tokens - len(self.cells)


@dataclass(frozen=True)
class Texts:
    """What a page knows of a log's records besides the table. Keys are records' numbers."""

    text_of: TextOf
    outcomes: Mapping[int, str]
    prompts: Mapping[int, str]


def message(table: TokenTable, number: int, texts: Texts) -> Message:
    """One message for a page that runs no script."""
    rows = np.flatnonzero(table.record == number)
    cells = tuple(
        Cell(
            texts.text_of(int(table.token[row])),
            texts.text_of(int(table.reference[row])),
            bool(table.mismatch[row]),
            float(table.margin[row]) if np.isfinite(table.margin[row]) else None,
        )
        for row in rows[:_MOST_CELLS]
    )
    mismatches = int(table.mismatch[rows].sum())
    return Message(number, texts.prompts.get(number, ""), cells, len(rows), mismatches)


def pack(table: TokenTable, texts: Texts, characters: int, first: int | None) -> Pack:
    """As many messages as `characters` of base64 hold, those with the most mismatches first.

    `first` is the message that a page shows before it has unpacked anything, and always among them.
    """
    order = _by_interest(table, first)
    _, _, lengths = table.messages
    shown = _fitting(lengths[order], characters / _CODES_A_TOKEN) if len(order) else 0
    while True:
        data = _encode(table, texts, np.sort(order[:shown]))
        if len(data) <= characters or shown <= 1:
            break
        shown = max(1, int(shown * min(0.9, characters / len(data))))
    start = None if first is None else message(table, first, texts)
    return Pack(data, shown, len(order), start)


def _by_interest(table: TokenTable, first: int | None) -> Any:
    numbers, _, _ = table.messages
    order = np.argsort(-table.mismatches_a_message, kind="stable")
    if first is not None:
        ahead = np.flatnonzero(numbers[order] == first)
        order = np.concatenate([order[ahead], np.delete(order, ahead)])
    return order


def _fitting(lengths: Any, tokens: float) -> int:
    return max(1, int(np.searchsorted(np.cumsum(lengths), tokens, side="right")))


def _encode(table: TokenTable, texts: Texts, chosen: Any) -> str:
    numbers, starts, lengths = table.messages
    words: dict[int, int] = {}

    def word(token: int) -> int:
        return words.setdefault(token, len(words))

    messages = []
    for index in chosen.tolist():
        begin, number = int(starts[index]), int(numbers[index])
        part = slice(begin, begin + int(lengths[index]))
        tokens = [word(token) for token in table.token[part].tolist()]
        differing = np.flatnonzero(table.mismatch[part])
        wide = np.flatnonzero((table.admissible[part] >= 0) & (table.admissible[part] != 1))
        messages.append([
            number, texts.outcomes.get(number, ""), texts.prompts.get(number, ""), tokens,
            [_mismatch(table, begin + at, at, word) for at in differing.tolist()],
            [[at, int(table.admissible[begin + at])] for at in wide.tolist()],
        ])  # fmt: skip
    value = {
        "words": [texts.text_of(token) for token in words],
        "messages": messages,
        "admissible": bool((table.admissible >= 0).any()),
    }
    raw = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode("ascii")


def _mismatch(table: TokenTable, row: int, at: int, word: Callable[[int], int]) -> list[object]:
    margin, bits = float(table.margin[row]), float(table.codelength[row])
    return [
        at,
        word(int(table.reference[row])),
        round(margin, 3) if math.isfinite(margin) else None,
        int(table.rank[row]),
        round(bits, 2) if math.isfinite(bits) else None,
    ]
