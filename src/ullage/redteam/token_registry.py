"""All adversaries of the token game, in the order in which the table shows them."""

from __future__ import annotations

from ullage.redteam import (
    branch_search,
    context_steering,
    error_corrected,
    intermittent,
    model_swaps,
    naive,
    near_tie_flip,
    noise_mimicry,
    seed_grinding,
)
from ullage.redteam.token_adversary import TokenAdversary

TOKEN_ADVERSARIES: tuple[TokenAdversary, ...] = (
    naive.PAYLOAD_GAME,
    *near_tie_flip.ADVERSARIES,
    noise_mimicry.TEMPERED,
    noise_mimicry.MIMIC,
    noise_mimicry.POISONED,
    context_steering.ADVERSARY,
    intermittent.SPARSE_THIRD,
    intermittent.SPARSE_TENTH,
    intermittent.SPARSE_FIFTIETH,
    intermittent.BURST_HALF,
    intermittent.BURST_TENTH,
    error_corrected.ADVERSARY,
    branch_search.HASH_BRANCH,
    branch_search.BEST_OF_K,
    seed_grinding.ADVERSARY,
    model_swaps.UNSEEDED_GAME,
    model_swaps.WARMER,
    model_swaps.HIDDEN,
    model_swaps.LORA,
    model_swaps.FP8_KV,
    model_swaps.INT4_GAME,
    model_swaps.INT8_GAME,
    model_swaps.HONEST_GAME,
)
