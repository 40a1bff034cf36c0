"""Seed grinding: where nobody issues seeds, the server tries many until the answer says what it wants.

Every token is then the declared sampler's own under the seed that was recorded, so recomputation finds
nothing: the payload is in the seed. Here the first token's hash carries it, for a receiver who does not
even see the seed. A tap that issues seeds closes this; one that does not must count 63 bits a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ullage.redteam.tokens.adversary import Briefing, TokenAdversary
from ullage.redteam.tokens.game import Agents, Reading, Traffic
from ullage.redteam.tokens.hidden_bits import bits_at, hash_bits, shared_hash
from ullage.sampling.address import NoiseAddress
from ullage.sampling.profiles import get_profile
from ullage.server.chooser import DEFAULT_PROFILE, SeededChooser
from ullage.server.rows import Row

BITS = 3
TRIES = 8 << BITS
SEED_BITS = 63


class GrindingChooser:
    """The honest sampler under a seed of its own choice."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._honest = SeededChooser()
        self.seeds: dict[str, int] = {}
        self.attempted = 0

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
        """One token for each of the logits' rows `(B, V)`."""
        for index, row in enumerate(rows):
            if row.request_id not in self.seeds:
                self.seeds[row.request_id] = self._grind(logits[index].float().numpy(force=True), row)
                self.attempted += BITS
        ground = [replace(row, seed=self.seeds[row.request_id]) for row in rows]
        return list(self._honest.choose(logits, ground))

    def _grind(self, logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]], row: Row) -> int:  # (V,)
        seeds = [shared_hash("try", row.seed, number) >> 1 for number in range(TRIES)]
        address = NoiseAddress(
            np.array(seeds, np.uint64), np.full(TRIES, row.position), np.full(TRIES, len(row.output_ids))
        )
        tokens = get_profile(DEFAULT_PROFILE).choose(np.tile(logits, (TRIES, 1)), row.parameters, address)
        wanted = bits_at(self._payload, payload_place(row.prompt_ids), BITS)
        found = (seed for seed, token in zip(seeds, tokens, strict=True) if token_bits(int(token)) == wanted)
        return next(found, seeds[0])

    def finished(self, row: Row) -> None:
        """The seed is kept: it is what the record says."""


def payload_place(prompt_ids: Sequence[int]) -> int:
    """Which payload bit an answer carries first: known to whoever knows the question."""
    return shared_hash("question", *prompt_ids) >> 16


def token_bits(token: int) -> list[int]:
    """The payload bits that a first token says."""
    return hash_bits("first token", [token], BITS)


def _enlist(briefing: Briefing) -> Agents:
    chooser = GrindingChooser(briefing.payload)

    def read(traffic: Traffic) -> list[Reading]:  # looks at prompts and first tokens only
        return [
            Reading(payload_place(row.prompt_ids), token_bits(row.output_ids[0]))
            for row in traffic.messages
            if row.output_ids
        ]

    return Agents(
        briefing.reference.model, chooser, read, lambda: chooser.attempted, SEED_BITS, chooser.seeds
    )


ADVERSARY = TokenAdversary(
    "seed-grinding",
    "tries seeds until the first token's hash is the payload's; only where the tap does not issue seeds",
    _enlist,
)
