"""How soon the deviation alarm finds a server that is not the declared one, and how often it errs.

Streams are what an audit watches: one server's messages in the order of counters, fresh prompts and seeds in
each, under a calibration of runs that are in none of them. The declared server is bfloat16, and so are those
that are not it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ullage.audit.bounds.alarm import conformal_threshold, first_crossing, log_supremum
from ullage.audit.bounds.statistics import upper_bound
from ullage.model.reference import Reference
from ullage.redteam.servers.quantised import GROUP, quantise_model
from ullage.redteam.tokens.calibration import GameCalibration
from ullage.redteam.tokens.game import Size, Traffic, decode_rows, observe, requests
from ullage.redteam.tokens.hidden_bits import shared_hash
from ullage.redteam.tokens.model_swaps import WarmerChooser, copy_of
from ullage.redteam.tokens.pricing import ALPHA, Priced
from ullage.server.chooser import SeededChooser, TokenChooser
from ullage.server.rows import Row

FIRST_GAME = 1 << 34
"""Numbers of the streams' games; each kind of server has 2^28 of its own."""
CONFIDENCE = 0.95
_ROWS_AT_ONCE = 256

Floats = NDArray[np.float64]


class WrongSeedChooser:
    """The declared sampler under other seeds than the tap's."""

    def __init__(self) -> None:
        self._honest = SeededChooser()

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> Sequence[int]:
        """One token for each of the logits' rows `(B, V)`."""
        others = [replace(row, seed=shared_hash("another", row.seed) >> 1) for row in rows]
        return self._honest.choose(logits, others)

    def finished(self, row: Row) -> None:
        """Nothing is kept of a row."""


@dataclass(frozen=True)
class Server:
    """A server to watch. `stream`: messages of one stream, and the most tokens of each.

    `bars`: tokens to detection that are aimed at, median and 95th percentile; None for no aim."""

    name: str
    change: Callable[[torch.nn.Module], object]
    chooser: Callable[[], TokenChooser]
    stream: Size
    bars: tuple[int, int] | None


def _as_declared(_: torch.nn.Module) -> None:
    """The weights stay what they are."""


HONEST = Server("honest", _as_declared, SeededChooser, Size(4, 32), None)
WATCHED = (
    Server("wrong-seed", _as_declared, WrongSeedChooser, Size(1, 24), (4, 8)),
    Server("temperature-1.1", _as_declared, WarmerChooser, Size(10, 32), (60, 150)),
    Server("int4", lambda model: quantise_model(model, 4, GROUP), SeededChooser, Size(24, 32), (300, 600)),
    Server("int8", lambda model: quantise_model(model, 8, GROUP), SeededChooser, Size(24, 32), None),
)


def streams(reference: Reference, server: Server, count: int, number: int) -> Iterator[Priced]:
    """`count` streams of that server, as the verifier sees them; `number` makes them different."""
    model = copy_of(reference.model, torch.bfloat16)
    server.change(model)
    each = max(1, _ROWS_AT_ONCE // server.stream.messages)
    for batch, first in enumerate(range(0, count, each)):
        taken = min(each, count - first)
        size = Size(taken * server.stream.messages, server.stream.tokens)
        rows = requests(reference, size, FIRST_GAME + (number << 28) + batch)
        decode_rows(
            model, server.chooser(), rows, size.tokens,
            context_length=reference.context_length, eos=reference.tokenizer.eos_ids,
        )  # fmt: skip
        seen = observe(reference, rows, bounds=())
        for start in range(0, len(rows), server.stream.messages):
            here = slice(start, start + server.stream.messages)
            yield Priced.of(Traffic(seen.messages[here], seen.ties[here]))


@dataclass(frozen=True)
class Detection:
    """Tokens until the alarm over streams, (S,), inf where it stayed silent."""

    server: Server
    tokens: Floats
    longest: int

    def to_dict(self) -> dict[str, object]:
        ordered = np.sort(self.tokens)
        median, p95 = (float(ordered[math.ceil(q * len(ordered)) - 1]) for q in (0.5, 0.95))
        bars = self.server.bars
        return {
            "server": self.server.name,
            "streams": len(ordered),
            "tokens_a_stream_at_most": self.longest,
            "detected": int(np.isfinite(ordered).sum()),
            "median": median if math.isfinite(median) else None,
            "p95": p95 if math.isfinite(p95) else None,
            "bars": bars,
            "within_bars": None if bars is None else median <= bars[0] and p95 <= bars[1],
        }


def detection(
    reference: Reference,
    calibration: GameCalibration,
    server: Server,
    count: int,
    *,
    alpha: float = ALPHA,
    number: int = 1,
) -> Detection:
    """Watch `count` streams of one server."""
    tokens = []
    for stream in streams(reference, server, count, number):
        crossed = int(first_crossing(stream.log_e(calibration.noise, calibration.alarm_floor), alpha))
        tokens.append(float(crossed) if crossed else math.inf)
    return Detection(server, np.array(tokens), server.stream.messages * server.stream.tokens)


@dataclass(frozen=True)
class FalseAlarms:
    """ln sup E of honest streams, (S,), and of honest streams that the distribution-free limit is made of."""

    suprema: Floats
    calibration_suprema: Floats

    def to_dict(self, alphas: Sequence[float] = (1e-2, 1e-3, 1e-4)) -> dict[str, object]:
        return {
            "streams": len(self.suprema),
            "largest_ln_sup_e": float(self.suprema.max()),
            "e_process": [self._row(alpha, -math.log(alpha)) for alpha in alphas],
            "distribution_free": [
                self._row(alpha, conformal_threshold(self.calibration_suprema, alpha))
                for alpha in alphas
                if len(self.calibration_suprema) >= 1 / alpha - 1
            ],
        }

    def _row(self, alpha: float, limit: float) -> dict[str, object]:
        count = int(
            np.count_nonzero(self.suprema >= limit if limit == -math.log(alpha) else self.suprema > limit)
        )
        return {
            "alpha": alpha,
            "alarms": count,
            "rate": count / len(self.suprema),
            "rate_at_most": upper_bound(count, len(self.suprema), CONFIDENCE),
            "confidence": CONFIDENCE,
        }


def false_alarms(
    reference: Reference,
    calibration: GameCalibration,
    count: int,
    calibration_count: int,
    progress: Callable[[int], None] = lambda done: None,
) -> FalseAlarms:
    """Watch honest streams: `count` that are judged and `calibration_count` that make the limit."""
    found = []
    for number, wanted in ((10, count), (11, calibration_count)):
        suprema = []
        for done, stream in enumerate(streams(reference, HONEST, wanted, number), start=1):
            suprema.append(float(log_supremum(stream.log_e(calibration.noise, calibration.alarm_floor))))
            if done % 500 == 0:
                progress(done)
        found.append(np.array(suprema))
    return FalseAlarms(*found)
