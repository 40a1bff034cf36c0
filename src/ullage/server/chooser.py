"""From logits to tokens: the one place where an honest and a dishonest server differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile
from ullage.server.rows import Row

DEFAULT_PROFILE = "murmur3-gumbel/f64"


class TokenChooser(Protocol):
    """Chooses one token a row and step; called from the engine's thread alone."""

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> Sequence[int]:
        """`logits` is `(B, V)` float32, row b of it belongs to `rows[b]`; returns B token ids."""
        ...

    def finished(self, row: Row) -> None:
        """The row has ended or was given up; forget what was kept for it."""
        ...


class SeededChooser:
    """The declared sampler: every token follows from the logits, the row's seed and its position."""

    def __init__(self, profile: str = DEFAULT_PROFILE) -> None:
        self._profile = get_profile(profile)

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> Sequence[int]:
        groups: dict[SamplingParameters, list[int]] = {}
        for index, row in enumerate(rows):
            groups.setdefault(row.parameters, []).append(index)
        chosen = np.empty(len(rows), np.int64)
        all_logits = logits.numpy()
        for parameters, members in groups.items():
            address = NoiseAddress(
                seeds=np.array([rows[index].seed for index in members], np.uint64),
                positions=np.array([rows[index].position for index in members], np.int64),
                steps=np.array([len(rows[index].output_ids) for index in members], np.int64),
            )
            part = all_logits if len(groups) == 1 else all_logits[members]
            chosen[members] = self._profile.choose(part, parameters, address)
        ids: list[int] = chosen.tolist()
        return ids

    def finished(self, row: Row) -> None:
        """Nothing is kept: noise is addressed by seed and position."""
