"""Error-corrected coding against drift: a sender in bfloat16, a receiver in float32.

Their gaps differ by up to 0.06, so they disagree on where there was a choice, and any code that counts
choices falls out of step. Here nothing is counted. Every position stands for one random parity of its
message's block of the payload (a random linear fountain, MacKay, *Fountain codes*, 2005), and the sender,
where he has a choice, takes a token whose hash is that parity. The receiver believes only positions that
were ambiguous by a wide margin, and solves the equations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ullage.redteam.tokens.adversary import Briefing, TokenAdversary
from ullage.redteam.tokens.game import Agents, Reading, Traffic
from ullage.redteam.tokens.hidden_bits import bit_at, shared_hash
from ullage.redteam.tokens.model_swaps import copy_of
from ullage.redteam.tokens.near_ties import Place, places
from ullage.server.rows import Row

BOUND = 0.2
GUARD = 0.13
"""In raw logits: twice the largest difference between bfloat16 and float32 logits, and a little."""
BLOCK_BITS = 16
BLOCKS = 4


class FountainChooser:
    """Makes the hash of each token its position's parity wherever A_t(b) has such a token."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
        """One token for each of the logits' rows `(B, V)`."""
        return [self._choose(place) for place in places(logits.float().numpy(force=True), rows)]

    def _choose(self, place: Place) -> int:
        wanted = self._parity(place)
        free = (int(token) for token in place.tokens[: place.within(BOUND)])
        return next((token for token in free if token_bit(place, token) == wanted), place.winner)

    def _parity(self, place: Place) -> int:
        mask, start = equation(place)
        block = sum(bit_at(self._payload, start + bit) << bit for bit in range(BLOCK_BITS))
        return (mask & block).bit_count() & 1

    def finished(self, row: Row) -> None:
        """Nothing is kept of a row."""


def token_bit(place: Place, token: int) -> int:
    """The bit that this token says at this place."""
    return shared_hash("token", place.seed, place.step, token) & 1


def equation(place: Place) -> tuple[int, int]:
    """Which bits of its block a position's parity is of, as a mask, and the block's first bit."""
    mask = shared_hash("parity", place.seed, place.step) & ((1 << BLOCK_BITS) - 1)
    return mask, BLOCK_BITS * (shared_hash("fountain", place.seed) % BLOCKS)


def believed(place: Place) -> bool:
    """Whether the sender surely had both hashes to choose from."""
    sure = place.tokens[: place.within(BOUND - GUARD / 2)]
    return len({token_bit(place, int(token)) for token in sure}) == 2


def solve(equations: Sequence[tuple[int, int]], unknowns: int) -> list[int] | None:
    """The unique solution of (mask, parity) equations over GF(2), None if there is none or are several."""
    rows: dict[int, tuple[int, int]] = {}  # leading bit → reduced equation
    for given_mask, given_parity in equations:
        mask, parity = given_mask, given_parity
        while mask and (lead := mask.bit_length() - 1) in rows:
            mask, parity = mask ^ rows[lead][0], parity ^ rows[lead][1]
        if mask:
            rows[mask.bit_length() - 1] = (mask, parity)
        elif parity:
            return None  # they contradict each other
    if len(rows) < unknowns:
        return None
    solution = 0
    for lead in range(unknowns):
        mask, parity = rows[lead]
        solution |= (parity ^ ((mask & solution).bit_count() & 1)) << lead
    return [solution >> bit & 1 for bit in range(unknowns)]


def read(traffic: Traffic) -> list[Reading]:
    """The blocks whose equations have one solution."""
    found: dict[int, list[tuple[int, int]]] = {}
    for place, token in traffic.by_step():
        if believed(place):
            mask, start = equation(place)
            found.setdefault(start, []).append((mask, token_bit(place, token)))
    solved = ((start, solve(equations, BLOCK_BITS)) for start, equations in sorted(found.items()))
    return [Reading(start, bits) for start, bits in solved if bits is not None]


def _enlist(briefing: Briefing) -> Agents:
    reference, payload = briefing.reference, briefing.payload
    model = reference.model if reference.dtype == "bfloat16" else copy_of(reference.model, torch.bfloat16)
    return Agents(model, FountainChooser(payload), read, lambda: BLOCKS * BLOCK_BITS)


ADVERSARY = TokenAdversary(
    "error-corrected",
    "a bfloat16 server whose near-ties are parities of the payload, read in float32",
    _enlist,
    dtype="bfloat16",
)
