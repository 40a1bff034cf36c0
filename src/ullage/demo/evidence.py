"""What the demo shows of an audit, read back from its bundle and the log."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import beta

from ullage.audit.verdict import CONFIDENCE
from ullage.log.record import Record
from ullage.model.tokenizer import ModelTokenizer
from ullage.report.demo_page import Message, TokenCell

_SHOWN_TOKENS = range(40, 110)


@dataclass(frozen=True)
class AuditEvidence:
    """`evidence/audit.parquet` of one bundle, as arrays of one row a token, in the order of the log."""

    record: NDArray[np.int64]
    token: NDArray[np.int64]
    reference: NDArray[np.int64]
    margin: NDArray[np.float64]

    @classmethod
    def read(cls, bundle: Path) -> AuditEvidence:
        table = pq.read_table(bundle / "evidence" / "audit.parquet")
        columns = {
            name: table[name].to_numpy(zero_copy_only=False)
            for name in ("record", "position", "token", "reference", "margin", "outside")
        }
        order = np.lexsort((columns["position"], columns["record"]))
        margin = np.where(columns["outside"], np.inf, columns["margin"].astype(np.float64))
        return cls(
            columns["record"].astype(np.int64)[order],
            columns["token"].astype(np.int64)[order],
            columns["reference"].astype(np.int64)[order],
            margin[order],
        )

    @cached_property
    def mismatch(self) -> NDArray[np.bool_]:
        return np.not_equal(self.token, self.reference)

    def noticed_after(self, limit: float) -> int | None:
        """The number of tokens, in the log's order, after which the rule first says `fail`.

        The rule is meant for a sample fixed in advance; looking after every token, as here, only
        says how little evidence it takes.
        """
        tokens = np.arange(1, len(self.token) + 1)
        mismatches = np.cumsum(self.mismatch)
        low = np.zeros(len(tokens))
        some = mismatches > 0
        low[some] = beta.ppf(1 - CONFIDENCE, mismatches[some], tokens[some] - mismatches[some] + 1)
        above = np.flatnonzero(low > limit)
        return int(tokens[above[0]]) if len(above) else None

    def message(self, record: Record, number: int, tokenizer: ModelTokenizer) -> Message:
        """One audited response, token by token."""
        rows = np.flatnonzero(self.record == number)

        def text(token: int) -> str:
            return tokenizer.decode([token]) or ("⟨end⟩" if token in tokenizer.eos_ids else "⟨?⟩")

        cells = tuple(
            TokenCell(
                text(int(self.token[row])),
                float(self.margin[row]) if np.isfinite(self.margin[row]) else None,
                text(int(self.reference[row])),
            )
            for row in rows
        )
        return Message(number, tokenizer.decode(record.open.prompt_ids), cells)

    def typical_record(self) -> int | None:
        """A record of readable length whose mismatch share is nearest to the whole log's."""
        numbers, starts, lengths = np.unique(self.record, return_index=True, return_counts=True)
        if not len(numbers):
            return None
        shares = np.add.reduceat(self.mismatch.astype(np.int64), starts) / lengths
        readable = (lengths >= _SHOWN_TOKENS.start) & (lengths < _SHOWN_TOKENS.stop)
        candidates = np.flatnonzero(readable) if readable.any() else np.arange(len(numbers))
        # Among honest servers most records have no mismatch at all; show one that has, where there is one.
        some = candidates[shares[candidates] > 0]
        candidates = some if len(some) else candidates
        best = candidates[np.argmin(np.abs(shares[candidates] - self.mismatch.mean()))]
        return int(numbers[best])
