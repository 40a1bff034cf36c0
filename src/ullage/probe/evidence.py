"""Evidence against "this provider runs the declared configuration", token by token, anytime-valid.

H0. At each token, given everything before it and all that follows from prefix and seed,

    P(y = v) <= u_v for each near candidate v,        P(y is neither winner nor near) <= floor.

A bet names rates r_v >= u_v and r_out >= floor with a sum below 1. Its factor

    e = r_v / u_v  |  r_out / floor  |  c = (1 - sum r - r_out) / (1 - sum u - floor)  for the winner

has mean c + sum rho_v (r_v/u_v - c) + rho_out (r_out/floor - c) at true rates rho. Every bracket is
positive (r >= u makes c <= 1), so the mean is largest at rho = u, where it is 1: e is an e-variable for all
of H0, and products of such factors are test supermartingales (Ville: they reach 1/alpha with probability <=
alpha). This refines `ullage.audit.bounds.alarm` from one limit a token to one a candidate, so that a bet can
name *which* token an int8 model would say, and not only that something differs.

The evidence is an average. ALARM of it is on bets without a configuration: half of that on the alarm's own
(deviation at some rate, larger noise), half on tokens that were no near-tie at all, which is what another
prompt, sampler or seed says. The rest is on the configurations that the auditor can run, a third on each of
their families (weights, prompts, samplers), so that many of one kind do not dilute another. And each of
these starts half with the first token, half with an answer k at weight 1/(k (k+1)), so that a provider who
turns dishonest later is still found: the capital of bets that have not begun lies idle, which is a bet of
factor 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bounds.alarm import log_bets
from ullage.audit.coding import INFLATIONS
from ullage.probe.views import Array, Integers, SeededView, SoftmaxView, View

_MOST: Final = 0.999  # of the room that a bet may take, so that no token loses all of it
_FROM_THE_START: Final = 0.8
ALARM: Final = 0.25
_ELSEWHERE: Final = (0.9, 0.6, 0.4, 0.2, 0.1, 0.05, 0.02)
"""Shares of tokens that a server says elsewhere than at a near-tie."""
_SAMPLERS: Final = ("unseeded", "temperature", "greedy")
_PROMPTS: Final = ("no-template", "other-template", "system-prompt")


def log_factors(null: SeededView, other: View, claimed: Integers) -> Array:
    """ln e (T,) of the bet that `other` is right, valid if `null` is. 0 where the limits leave no room."""
    limits, floor = null.limits(), null.noise.floor
    room = 1 - limits.sum(axis=1) - floor  # (T,)
    expected = other.probability_of(null.outcomes)  # (T, 1 + C)
    rates = np.maximum(expected[:, 1:], limits)
    outside = np.maximum(1 - expected.sum(axis=1), floor)
    raised = (rates - limits).sum(axis=1) + outside - floor
    usable = room > 1e-9
    share = np.where(
        raised > 0, np.minimum(1.0, _MOST * np.maximum(room, 0.0) / np.maximum(raised, 1e-300)), 0.0
    )
    rates = limits + share[:, None] * (rates - limits)
    outside = floor + share * (outside - floor)
    none = np.where(usable, (room - share * raised) / np.where(usable, room, 1.0), 1.0)
    factors = np.where(claimed == null.winner, none, outside / floor)
    hits = (null.outcomes[:, 1:] == claimed[:, None]) & (claimed != null.winner)[:, None]
    ratio = np.where(hits, rates / np.where(hits, limits, 1.0), 0.0).sum(axis=1)
    factors = np.where(hits.any(axis=1), ratio, factors)
    return np.where(usable, np.log(np.maximum(factors, 1e-300)), 0.0)


def log_ratio(null: View, other: View, claimed: Integers) -> Array:
    """ln of P_other / P_null (T,) of the claimed tokens: the bet against a null that is one distribution."""
    ids = claimed[:, None]
    ratio: Array = np.log(other.probability_of(ids)[:, 0]) - np.log(null.probability_of(ids)[:, 0])
    return ratio


def alarm_bets(null: SeededView, claimed: Integers) -> list[tuple[float, Array]]:
    """Weight's logarithm and ln factors (T,) of the bets without a configuration; weights sum to 1."""
    limits = np.clip(null.limits().sum(axis=1), 1e-300, 1.0)
    hits = (null.outcomes[:, 1:] == claimed[:, None]).any(axis=1) & (claimed != null.winner)
    outside = (claimed != null.winner) & ~hits
    louder = [null.noise.model.mismatch_probability(null.gaps, factor) for factor in INFLATIONS]
    half = math.log(0.5)
    own = log_bets(limits, hits, outside, null.noise.floor, louder)
    return [(half + weight, steps) for weight, steps in own] + [
        (half - math.log(len(_ELSEWHERE)), _elsewhere(limits, hits, outside, null.noise.floor, share))
        for share in _ELSEWHERE
    ]


def _elsewhere(
    limits: Array, hits: NDArray[np.bool_], outside: NDArray[np.bool_], floor: float, share: float
) -> Array:
    """ln factors (T,) of r_out = floor + share (1 - pi - floor), near-ties at their limits."""
    room = np.maximum(1 - limits - floor, 0.0)
    none = np.where(room > 0, math.log1p(-share), 0.0)
    found = np.where(outside, np.log1p(share * room / floor), none)
    return np.asarray(np.where(hits, 0.0, found))


def configuration_weights(names: Sequence[str]) -> dict[str, float]:
    """Each configuration's part of what is bet on configurations: families alike, members of one alike."""
    families = [_family(name) for name in names]
    share = 1 / max(len(set(families)), 1)
    return {name: share / families.count(family) for name, family in zip(names, families, strict=True)}


def _family(name: str) -> str:
    if name.startswith(_SAMPLERS):
        return "samplers"
    return "prompts" if name.startswith(_PROMPTS) else "weights"


class Bet(NamedTuple):
    """One bet on an answer: ln of its weight, and ln of its factors (T,)."""

    name: str
    log_weight: float
    steps: Array


def bets_of(
    null: SeededView, others: Mapping[str, View], claimed: Integers, names: Sequence[str]
) -> list[Bet]:
    """All bets on one answer: the alarm's, and one for each of the configurations `names`."""
    alarm = math.log(ALARM)
    found = [
        Bet(f"alarm {at}", alarm + weight, steps)
        for at, (weight, steps) in enumerate(alarm_bets(null, claimed))
    ]
    for name, weight in configuration_weights(names).items():
        steps = log_factors(null, others[name], claimed) if name in others else np.zeros(len(claimed))
        found.append(Bet(name, math.log((1 - ALARM) * weight), steps))
    return found


@dataclass
class _Capital:
    """One bet's: what began with the first token, and what began with later answers."""

    started: float = math.log(_FROM_THE_START)
    restarted: float = -math.inf
    idle: float = 1 - _FROM_THE_START

    def begin(self, answer: int) -> None:
        """`answer` counts from 1."""
        stake = (1 - _FROM_THE_START) / (answer * (answer + 1))
        self.idle -= stake
        self.restarted = float(np.logaddexp(self.restarted, math.log(stake)))

    def advance(self, steps: Array) -> Array:
        """ln capital (T,) after each of these factors."""
        path = np.cumsum(steps)
        total = np.logaddexp(np.logaddexp(self.started + path, self.restarted + path), math.log(self.idle))
        if len(path):
            self.started += float(path[-1])
            self.restarted += float(path[-1])
        return total


@dataclass
class Evidence:
    """ln E over all answers so far, and where it first reached 1/alpha."""

    alpha: float
    names: tuple[str, ...] = ()
    """The configurations that are bet on, in each answer the same."""
    log_e: float = 0.0
    highest: float = 0.0
    tokens: int = 0
    answers: int = 0
    crossed_at: int = 0
    """Tokens seen when E reached 1/alpha; 0 if it has not."""
    _capital: dict[str, _Capital] = field(default_factory=dict)

    def add(self, null: SeededView, others: Mapping[str, View], claimed: Integers) -> Array:
        """Take in one answer; ln E (T,) after each of its tokens. A configuration that has no view of this
        answer rests."""
        return self.advance(bets_of(null, others, claimed, self.names))

    def advance(self, bets: Sequence[Bet]) -> Array:
        """The same from an answer's bets, always the same ones in the same order."""
        self.answers += 1
        idle = 0.0 if self.names else 1 - ALARM
        total = np.full(len(bets[0].steps), math.log(idle) if idle else -np.inf)
        for bet in bets:
            capital = self._capital.setdefault(bet.name, _Capital())
            capital.begin(self.answers)
            total = np.logaddexp(total, bet.log_weight + capital.advance(bet.steps))
        self._note(total)
        return total

    def _note(self, total: NDArray[np.float64]) -> None:
        above = np.flatnonzero(total >= -math.log(self.alpha))
        if above.size and not self.crossed_at:
            self.crossed_at = self.tokens + int(above[0]) + 1
        self.tokens += len(total)
        if len(total):
            self.log_e = float(total[-1])
            self.highest = max(self.highest, float(total.max()))


@dataclass
class Exclusions:
    """For each other configuration: evidence that the provider is *not* it, betting on the declared one."""

    alpha: float
    log_e: dict[str, float] = field(default_factory=dict)
    highest: dict[str, float] = field(default_factory=dict)

    def add(self, declared: View, others: Mapping[str, View], claimed: Integers) -> None:
        for name, view in others.items():
            if isinstance(view, SeededView):
                step = log_factors(view, declared, claimed)
            else:
                assert isinstance(view, SoftmaxView)  # noqa: S101 - there are two kinds of views
                step = log_ratio(view, declared, claimed)
            before = self.log_e.get(name, 0.0)
            path = before + np.cumsum(step)
            self.log_e[name] = float(path[-1]) if len(path) else before
            self.highest[name] = max(self.highest.get(name, 0.0), float(path.max(initial=before)))

    def excluded(self, name: str) -> bool:
        """Whether the provider is not this configuration, at alpha."""
        return self.highest.get(name, 0.0) >= -math.log(self.alpha)
