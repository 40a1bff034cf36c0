"""Which adversaries there are to tokens. A new one is a file with an `ADVERSARY` in it and a line here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ullage.errors import UsageError
from ullage.redteam.adversary import Adversary

if TYPE_CHECKING:
    from ullage.redteam.adversary import Cheat, Setting
    from ullage.redteam.tokens.adversary import TokenAdversary


@dataclass(frozen=True)
class _Place:
    """Where an adversary is: `module:name`, of this room. Either is None where it does not take part."""

    game: str | None  # a TokenAdversary, which plays the token game
    server: str | None  # what `ullage redteam serve` runs; that of the game can be served as it is


def _both(where: str) -> _Place:
    return _Place(where, where)


# In the order of the token game's table. Imported when asked for, because adversaries bring torch.
_WHERE: dict[str, _Place] = {
    "payload": _Place("tokens.naive:PAYLOAD_GAME", "servers.payload:ADVERSARY"),
    "near-tie-0.016": _both("tokens.near_tie_flip:FINE"),
    "near-tie-0.05": _both("tokens.near_tie_flip:USUAL"),
    "near-tie-0.2": _both("tokens.near_tie_flip:WIDE"),
    "near-tie-0.5": _both("tokens.near_tie_flip:WIDEST"),
    "near-tie-0.05-filtered": _both("tokens.near_tie_flip:USUAL_FILTERED"),
    "near-tie-0.2-filtered": _both("tokens.near_tie_flip:WIDE_FILTERED"),
    "tempered": _both("tokens.noise_mimicry:TEMPERED"),
    "mimic": _both("tokens.noise_mimicry:MIMIC"),
    "mimic-filtered": _both("tokens.noise_mimicry:MIMIC_FILTERED"),
    "poisoned-calibration": _both("tokens.noise_mimicry:POISONED"),
    "steering": _both("tokens.context_steering:ADVERSARY"),
    "just-under-alarm": _both("tokens.just_under_alarm:ADVERSARY"),
    "sparse-0.3": _both("tokens.intermittent:SPARSE_THIRD"),
    "sparse-0.1": _both("tokens.intermittent:SPARSE_TENTH"),
    "sparse-0.02": _both("tokens.intermittent:SPARSE_FIFTIETH"),
    "burst-0.5": _both("tokens.intermittent:BURST_HALF"),
    "burst-0.1": _both("tokens.intermittent:BURST_TENTH"),
    "error-corrected": _both("tokens.error_corrected:ADVERSARY"),
    "hash-branch": _both("tokens.branch_search:HASH_BRANCH"),
    "best-of-k": _both("tokens.branch_search:BEST_OF_K"),
    "draft-and-repair": _both("tokens.draft_and_repair:ADVERSARY"),
    "seed-grinding": _both("tokens.seed_grinding:ADVERSARY"),
    "repeat-after-me": _Place("tokens.repeat_after_me:ADVERSARY", None),
    "unseeded": _Place("tokens.model_swaps:UNSEEDED_GAME", "servers.unseeded:ADVERSARY"),
    "temperature-1.1": _both("tokens.model_swaps:WARMER"),
    "hidden-prompt": _both("tokens.model_swaps:HIDDEN"),
    "lora": _both("tokens.model_swaps:LORA"),
    "fp8-kv": _both("tokens.model_swaps:FP8_KV"),
    "int4": _Place("tokens.model_swaps:INT4_GAME", "servers.quantised:INT4"),
    "int8": _Place("tokens.model_swaps:INT8_GAME", "servers.quantised:INT8"),
    "honest-bf16": _Place("tokens.model_swaps:HONEST_GAME", None),
}


@cache
def token_adversaries() -> tuple[TokenAdversary, ...]:
    """All that play the token game, in the order of its table."""
    return tuple(_load(place.game) for place in _WHERE.values() if place.game is not None)


def _load(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(f"ullage.redteam.{module}"), name)


def adversary_names() -> tuple[str, ...]:
    """Names of all that can be served, sorted; imports nothing."""
    return tuple(sorted(name for name, place in _WHERE.items() if place.server is not None))


def get_adversary(name: str) -> Adversary:
    """The adversary of that name. Raises UsageError naming the known ones."""
    place = _WHERE.get(name)
    if place is None or place.server is None:
        raise UsageError(f"There is no adversary '{name}'; known are {', '.join(adversary_names())}.")
    found: Adversary | TokenAdversary = _load(place.server)
    return found if isinstance(found, Adversary) else found.as_adversary()


def build_cheat(name: str, setting: Setting) -> Cheat:
    """Build that adversary. Raises UsageError for a payload that is missing or not wanted."""
    adversary = get_adversary(name)
    if adversary.needs_payload and setting.payload is None:
        raise UsageError(f"The adversary '{name}' hides a file; name one with --payload FILE.")
    if setting.payload is not None and not adversary.needs_payload:
        raise UsageError(f"The adversary '{name}' hides nothing; leave --payload out.")
    return adversary.build(setting)
