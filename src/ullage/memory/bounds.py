"""What a timed answer proves about memory. Pure functions; `docs/memory.md` derives them.

Shares are of the region unless said otherwise, rates are bytes a second, times are seconds. A *missing*
share is the part of the region that did not hold the noise when the question came.
"""

from __future__ import annotations

import math

_BISECTIONS = 200
TAG_BITS = 128


def kl(q: float, x: float) -> float:
    """KL(q ‖ x) of two Bernoulli laws in nats; infinite where x excludes what q allows."""
    if not (0 <= q <= 1 and 0 <= x <= 1):
        raise ValueError("probabilities lie in [0, 1]")
    total = 0.0
    for left, right in ((q, x), (1 - q, 1 - x)):
        if left > 0:
            if right <= 0:
                return math.inf
            total += left * math.log(left / right)
    return max(total, 0.0)


def log_choose(n: int, k: int) -> float:
    """ln C(n, k)."""
    if not 0 <= k <= n:
        raise ValueError("k lies between 0 and n")
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def recoverable_share(rebuild_rate: float, store_rate: float, deadline: float, asked_bytes: int) -> float:
    """q*: the most of the bytes asked for that need not have been in memory.

    Within the deadline the machine rebuilds at most `rebuild_rate * deadline` bytes, with everything in it,
    and fetches at most `store_rate * deadline` from other stores at the same time.
    """
    if min(rebuild_rate, store_rate) < 0 or deadline <= 0 or asked_bytes <= 0:
        raise ValueError("rates are not negative; deadline and bytes are positive")
    return min(1.0, (rebuild_rate + store_rate) * deadline / asked_bytes)


def log_false_acceptance(q: float, x: float, blocks: int, rounds: int, quorum: int) -> float:
    """ln of C(R, k) exp(-k m KL(q ‖ x)), at most 0: the chance that k of R rounds are in time although a
    share x > q was missing in each of them.

    A round's m blocks are drawn without replacement after the state of memory is fixed; Hoeffding (1963,
    theorem 4) carries the Chernoff bound of independent draws over to it.
    """
    if blocks < 1 or not 1 <= quorum <= rounds:
        raise ValueError("a quorum is 1 to R rounds of at least one block")
    if x <= q:
        return 0.0
    return min(0.0, log_choose(rounds, quorum) - quorum * blocks * kl(q, x))


def missing_share(q: float, blocks: int, population: int, rounds: int, quorum: int, *, error: float) -> float:
    """Upper bound on the share that was missing in the best round, wrong with probability <= `error`.

    All blocks asked (`blocks == population`): q itself, nothing is left to chance. Otherwise the smallest
    x > q with C(R, k) exp(-k m KL(q ‖ x)) <= error.
    """
    if not 0 < error < 1 or blocks > population:
        raise ValueError("error lies in (0, 1), and a round asks for at most all blocks")
    if q >= 1:
        return 1.0
    if blocks == population:
        return q
    target = math.log(error)
    low, high = q, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if log_false_acceptance(q, middle, blocks, rounds, quorum) <= target:
            high = middle
        else:
            low = middle
    return high


def forgery_probability(answers: int, segment_bytes: int) -> float:
    """Chance that one of `answers` wrong GMAC tags is accepted: each (l + 1) / 2^128 with l cipher blocks
    hashed (McGrew and Viega, INDOCRYPT 2004), the lengths' block counted in."""
    if answers < 0 or segment_bytes < 0:
        raise ValueError("counts are not negative")
    return answers * (-(-segment_bytes // 16) + 2) / 2.0**TAG_BITS


def erased_fraction(region_bytes: int, missing: float, machine_bytes: int) -> float:
    """Share of the machine's memory that was overwritten: what the agent did not reach counts as kept."""
    if not 0 <= missing <= 1 or region_bytes < 0 or machine_bytes <= 0:
        raise ValueError("a region has no negative size, a machine a positive one")
    return min(1.0, region_bytes * (1 - missing) / machine_bytes)


def iterations_for(rebuild_rate: float, read_rate: float, slack: float, share: float) -> int:
    """kappa: how often a cell is encrypted so that rebuilding within the deadline reaches `share` at most.

    `rebuild_rate` is that of kappa = 1, `read_rate` what an honest machine answers with; the deadline is
    slack times the honest time.
    """
    if min(rebuild_rate, read_rate) <= 0 or slack < 1 or not 0 < share < 1:
        raise ValueError("rates are positive, slack is at least 1, the share lies in (0, 1)")
    return max(1, math.ceil(rebuild_rate * slack / (read_rate * share)))


def missing_steps(deadline: float, steps: int, alternative: float) -> float:
    """Share of a chain's steps that can have taken a block from another source than memory.

    One that goes elsewhere takes at least `alternative` seconds, however many blocks it fetches there at
    once; steps cannot overlap, so the ones that went elsewhere are at most D / (m t_alt) of all. All others
    count as taking no time: under a known key a block can be hashed ahead, and of its hash a step needs 16
    bytes.
    """
    if steps < 1 or min(deadline, alternative) <= 0:
        raise ValueError("times and steps are positive")
    return min(1.0, deadline / (steps * alternative))


def missing_blocks(steps: float, width: int) -> float:
    """Share of blocks that is missing if at most this share of steps meets one: a step reads `width` blocks
    drawn at random, so it meets none with probability (1 - x)^width."""
    if not 0 <= steps <= 1 or width < 1:
        raise ValueError("a share lies in [0, 1], and a step reads blocks")
    return -math.expm1(math.log1p(-steps) / width) if steps < 1 else 1.0


def missing_at_first(
    share: float, blocks: int, elsewhere: float, *, steps: int, width: int, error: float
) -> float:
    """How many of `blocks` can have been missing when a chain began if at most `share` of them was missing at
    some step, and at most `elsewhere` steps took some from another source: those are there afterwards.

    A step draws F of the M that were missing, F binomial whatever the prover does, and learns at most F. All
    together learn at most `elsewhere` + the sum of max(0, F - 1) over m steps. The answer is the smallest M
    beyond which more than `share` is missing all the time; who misses more could always discard, so does no
    better.
    """

    def at_most(missing: float) -> float:
        return share * blocks + elsewhere + _drawn_beside(missing / blocks, steps, width, error)

    most = share * blocks
    for _ in range(_BISECTIONS):
        grown = at_most(most)
        beyond = (
            grown + 1 + 10 * (grown - most)
        )  # as it grows by ever smaller parts, mostly beyond the answer
        if beyond >= blocks:
            break
        if at_most(beyond) <= beyond:
            return beyond
        most = grown
    return float(blocks)


def _drawn_beside(share: float, steps: int, width: int, error: float) -> float:
    """What the sum of max(0, F - 1) over m steps stays below but for the error, F binomial of `width` draws.

    Chernoff: (m ln E exp(s max(0, F - 1)) + ln(1 / error)) / s for any s > 0.
    """
    found = math.inf
    for tilt in (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125):
        none, drawn = (1 - share) ** width, (1 + share * math.expm1(tilt)) ** width
        grown = none + (drawn - none) * math.exp(-tilt)
        found = min(found, (steps * math.log(grown) - math.log(error)) / tilt)
    return found
