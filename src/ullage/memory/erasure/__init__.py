"""The verifier's side of an erasure: noise in, questions against the clock, and what the answers prove."""

from ullage.memory.erasure.plan import MODES, WAYS, By, Mode, Plan
from ullage.memory.erasure.run import Erasure, erase, greet

__all__ = ["MODES", "WAYS", "By", "Erasure", "Mode", "Plan", "erase", "greet"]
