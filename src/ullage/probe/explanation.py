"""Which configuration explains a provider's tokens best, whether one explains them at all, and since when.

Likelihoods only order explanations; whether the declared configuration is *refuted* is `evidence`'s matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from ullage.probe.scoring import Scored
from ullage.probe.views import SHIFTS, SoftmaxView

UNLISTED: Final = "unlisted"
_SHARES: Final = (0.01, 0.05, 0.2, 0.5, 0.9)
_ODDS: Final = math.log(1000.0)


@dataclass(frozen=True)
class Explanation:
    """Configurations by log-likelihood (nats, natural logarithm), the best first, and their shares.

    `share`: of the posterior probability if all listed ones, and `unlisted`, were equally likely before.
    """

    names: tuple[str, ...]
    log_likelihood: tuple[float, ...]
    share: tuple[float, ...]
    follows_seed: bool = False
    """Whether the tokens follow the seed, a thousand to one, whatever the logits are."""
    shift: int = 0
    """If so: by how many tokens the prompt is longer than the declared one, as the noise's positions say."""

    @property
    def best(self) -> str:
        return self.names[0] if self.names else UNLISTED


@dataclass(frozen=True)
class Change:
    """From answer `answer` on (counted from 0) `after` explains the tokens, and `before` until then."""

    answer: int
    before: str
    after: str
    gain: float
    """Nats over the best explanation without a change."""


@dataclass
class Likelihoods:
    """ln P of every answer under every configuration.

    Noise and tokens count together: P(noise) P(tokens | noise), P(noise) being the same for all and left out.
    """

    names: tuple[str, ...]
    rows: list[NDArray[np.float64]] = field(default_factory=list)
    log_seed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(SHIFTS)))
    """ln of the e-values that the tokens follow the seed, for each of SHIFTS."""

    def add(self, scored: Scored) -> None:
        """One more answer. A configuration without a view of it is taken to expect none of its tokens."""
        size = scored.declared.noise.model.vocabulary_size
        worst = len(scored.claimed) * math.log(size)
        ids = scored.claimed[:, None]
        known = [
            float(np.log(scored.views[name].probability_of(ids)).sum()) if name in scored.views else -worst
            for name in self.names
        ]
        self.rows.append(np.array([*known, *_unlisted(scored)]))
        if scored.seed_evidence is not None:
            self.log_seed = self.log_seed + scored.seed_evidence

    def table(self) -> NDArray[np.float64]:
        """(answers, configurations + shares of deviation + other logits under the seed, by shift)."""
        width = len(self.names) + len(_SHARES) + len(SHIFTS)
        return np.array(self.rows) if self.rows else np.zeros((0, width))

    def explain(self) -> Explanation:
        total = self.table().sum(axis=0)
        count = len(self.names)
        apart, seeded = total[count : count + len(_SHARES)], total[count + len(_SHARES) :]
        unlisted = math.log(0.5) + float(
            np.logaddexp(logsumexp(apart) - math.log(len(apart)), logsumexp(seeded) - math.log(len(seeded)))
        )
        log_seed = float(logsumexp(self.log_seed)) - math.log(len(SHIFTS))
        every = np.append(total[:count], unlisted)
        names = (*self.names, UNLISTED)
        order = np.argsort(-every, kind="stable")
        share = np.exp(every - logsumexp(every))
        return Explanation(
            tuple(names[at] for at in order),
            tuple(float(every[at]) for at in order),
            tuple(float(share[at]) for at in order),
            log_seed > _ODDS,
            SHIFTS[int(self.log_seed.argmax())],
        )

    def change(self) -> Change | None:
        """The place where one explanation gives way to another, if two explain a thousand times better than
        one, all places and pairs equally likely before."""
        table = self.table()
        answers, width = table.shape
        if answers < 2:
            return None
        before = np.cumsum(table, axis=0)[:-1]  # (answers - 1, width)
        total = table.sum(axis=0)
        after = total - before
        two = before.max(axis=1) + after.max(axis=1)
        place = int(two.argmax())
        first, second = int(before[place].argmax()), int(after[place].argmax())
        gain = float(two[place] - total.max())
        if gain < math.log(answers - 1) + 2 * math.log(width) + _ODDS or first == second:
            return None
        return Change(place + 1, self._name(first), self._name(second), gain)

    def _name(self, column: int) -> str:
        return self.names[column] if column < len(self.names) else UNLISTED


def _unlisted(scored: Scored) -> Sequence[float]:
    """ln P if the provider runs something that says the declared winner most of the time, and otherwise
    something that is plausible, for several shares; and if it says what is plausible by the seed: another
    template, say, whose logits nobody has, but whose noise is known (`log_seed_evidence`)."""
    declared = scored.declared
    soft = [view for view in scored.views.values() if isinstance(view, SoftmaxView)]
    ids = scored.claimed[:, None]
    plausible = (
        np.mean([view.probability_of(ids)[:, 0] for view in soft], axis=0)
        if soft
        else np.full(len(scored.claimed), 1 / declared.noise.model.vocabulary_size)
    )
    same = scored.claimed == declared.winner
    apart = [float(np.log((1 - share) * same + share * plausible).sum()) for share in _SHARES]
    if scored.seed_evidence is None:
        return [*apart, *[max(apart)] * len(SHIFTS)]
    return [*apart, *(float(np.log(plausible).sum()) + scored.seed_evidence).tolist()]
