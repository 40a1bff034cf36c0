"""Which adversaries there are. A new one is a file with an `ADVERSARY` in it and a line in this table."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ullage.errors import UsageError

if TYPE_CHECKING:
    from ullage.redteam.adversary import Adversary, Cheat, Setting

# name → module of this room, name of the adversary in it; imported when asked for, because they bring torch.
_WHERE: dict[str, tuple[str, str]] = {
    "int4": ("quantised", "INT4"),
    "int8": ("quantised", "INT8"),
    "payload": ("payload", "ADVERSARY"),
    "unseeded": ("unseeded", "ADVERSARY"),
}


def adversary_names() -> tuple[str, ...]:
    """All names, sorted; imports nothing."""
    return tuple(sorted(_WHERE))


def get_adversary(name: str) -> Adversary:
    """The adversary of that name. Raises UsageError naming the known ones."""
    if name not in _WHERE:
        raise UsageError(f"There is no adversary '{name}'; known are {', '.join(adversary_names())}.")
    module, attribute = _WHERE[name]
    adversary: Adversary = getattr(importlib.import_module(f"ullage.redteam.{module}"), attribute)
    return adversary


def build_cheat(name: str, setting: Setting) -> Cheat:
    """Build that adversary. Raises UsageError for a payload that is missing or not wanted."""
    adversary = get_adversary(name)
    if adversary.needs_payload and setting.payload is None:
        raise UsageError(f"The adversary '{name}' hides a file; name one with --payload FILE.")
    if setting.payload is not None and not adversary.needs_payload:
        raise UsageError(f"The adversary '{name}' hides nothing; leave --payload out.")
    return adversary.build(setting)
