"""Bytes over capped links, memory that is left, and time between wipes: what the strategies share."""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.ranges import Array

FLAT_INTERVAL = 50
LONGEST_INTERVAL = 10_000
_LARGEST_EXPONENT = 500.0  # of e, so that nothing overflows


def seconds(size: Array, rate: float) -> Array:
    """Time for `size` bytes at `rate` bytes/s; infinite through a closed link."""
    return size / rate if rate > 0 else np.full_like(size, np.inf)


def exchange(constraints: Constraints, size: Array) -> Array:
    """Time of one synchronisation through a hub: each rack sends `size` bytes and receives as many.

    A hub in the dark needs one passage each way; a ring would send 2 (n-1)/n times as much. Both
    directions run at once, so the slower one counts.
    """
    out = seconds(size, constraints.covert_out)
    return np.maximum(out, seconds(size, constraints.covert_in))


def memory_share(constraints: Constraints, state: Array, working: Array) -> Array:
    """Share of full speed that the free memory allows: the state must fit, activations fill the rest."""
    return np.asarray(np.clip((constraints.free_memory - state) / working, 0.0, 1.0), dtype=np.float64)


def between_wipes(constraints: Constraints, lost: Array) -> Array:
    """Share of time left when each wipe costs its cycle and `lost` seconds: max(0, 1 - (c + lost)/P)."""
    if not constraints.wiped:
        return np.ones_like(lost)
    return np.maximum(0.0, 1.0 - (constraints.wipe_cycle + lost) / constraints.wipe_period)


def kept_through_wipes(constraints: Constraints, state: Array) -> Array:
    """1 where a rack can hide `state` bytes from each wipe, else 0; 1 everywhere without wipes."""
    if not constraints.wiped:
        return np.ones_like(state)
    return (state <= constraints.surviving_bytes).astype(np.float64)


def diloco_efficiency(interval: Array, at_1000: Array) -> Array:
    """eta(H): worth of an inner step when replicas synchronise every H steps.

    The published curve (Douillard et al. 2023, figure 4) is flat up to H = 50 and costs 2.9 % of
    perplexity at H = 1,000: 0.0286 nats. With a reducible loss of about 1 nat at that scale and
    loss ~ C^-0.154 (Hoffmann et al. 2022), (1 - 0.0286)^(1/0.154) = 0.83 of the compute. Between and
    beyond, eta falls in proportion to log H; beyond H = 2,000 it is extrapolated, and `LONGEST_INTERVAL`
    ends it. Measured with 8 replicas; tens of thousands are an extrapolation in the adversary's favour.
    """
    lost = _fall(at_1000) * np.log(np.maximum(interval, FLAT_INTERVAL) / FLAT_INTERVAL)
    return np.asarray(np.maximum(0.0, 1.0 - lost), dtype=np.float64)


def worth_of_steps(steps: Array, at_1000: Array) -> Array:
    """max over h <= `steps` of h eta(h) / `steps`: what compute for so many inner steps is worth.

    Nobody has to do more of them than pay. h eta(h) rises until eta(h) is the fall itself.
    """
    few = diloco_efficiency(steps, at_1000)
    turns, fall = _turns(at_1000), _fall(at_1000)
    worth = np.where(steps <= turns, few, turns * fall / np.maximum(steps, turns))
    return np.asarray(worth, dtype=np.float64)


def _turns(at_1000: Array) -> Array:
    """H at which H eta(H) is largest: eta(H) has come down to its fall."""
    turns = FLAT_INTERVAL * np.exp(np.minimum(1 / _fall(at_1000) - 1, _LARGEST_EXPONENT))
    return np.asarray(turns, dtype=np.float64)


def _fall(at_1000: Array) -> Array:
    """What eta loses for each factor e of H beyond `FLAT_INTERVAL`; a hair where it does not fall."""
    return np.asarray(np.maximum((1 - at_1000) / np.log(1_000 / FLAT_INTERVAL), 1e-9), dtype=np.float64)


def best_interval(exchange_steps: Array, at_1000: Array) -> Array:
    """H that maximises eta(H) min(1, H / `exchange_steps`), at most `LONGEST_INTERVAL`.

    `exchange_steps` is the exchange's time in inner steps. As long as H does not hide the exchange the
    product is H eta(H), which rises until eta(H) is the fall itself; once H hides it only eta counts.
    """
    hiding = np.maximum(exchange_steps, FLAT_INTERVAL)
    return np.asarray(np.minimum(np.minimum(hiding, _turns(at_1000)), LONGEST_INTERVAL), dtype=np.float64)


def periodic_share(
    constraints: Constraints, parameters: Parameters, size: Array, compression: Array, pace: Array
) -> Array:
    """Share of a machine's compute put to use, efficiency included, by a job that has `pace` of it and
    exchanges `size`/`compression` bytes every H inner steps; H is the adversary's choice.

    A job with half of a machine makes half as many steps and has twice the time for each exchange: the
    tighter of both limits counts, not their product. With t the length of a step at this pace:

    Without wipes (or where the update survives them) the exchange overlaps with compute:
    pace * max over H of eta(H) min(1, H t / t_sync). With wipes the update of each period must be out before
    its end, and the merged one comes in after it: (P - cycle - in - out)/P at the least H whose
    exchange hides behind compute, or one block a period, as short as pays best (`_one_block`).
    """
    sent = size / compression
    out = seconds(sent, constraints.covert_out)
    back = seconds(sent, constraints.covert_in)
    step = parameters.step_seconds / np.where(pace > 0, pace, 1.0)
    exchanged = np.maximum(out, back) / step
    interval = best_interval(exchanged, parameters.diloco_at_1000)
    with np.errstate(divide="ignore"):
        busy = np.minimum(1.0, interval / exchanged)
    free = busy * diloco_efficiency(interval, parameters.diloco_at_1000)
    if not constraints.wiped:
        return np.asarray(pace * free, dtype=np.float64)
    survives = kept_through_wipes(constraints, sent)
    left = between_wipes(constraints, out + back)
    room, hidden = left * constraints.wipe_period, np.maximum(out, back)
    many = left * worth_of_steps(np.minimum(hidden / step, 1e300), parameters.diloco_at_1000)
    one = _one_block(room, out + back + constraints.wipe_cycle, step, parameters.diloco_at_1000)
    wiped = np.minimum(free, np.maximum(np.where(room >= hidden, many, 0.0), one))
    kept = free * between_wipes(constraints, np.zeros_like(sent))
    best = np.where(survives > 0, np.maximum(kept, wiped), wiped)
    return np.asarray(pace * best, dtype=np.float64)


def _one_block(room: Array, lost: Array, step: Array, at_1000: Array) -> Array:
    """max over t <= `room` of t/(t + lost) eta(t/step): one block of t seconds, then `lost` seconds without.

    Where wipes leave more room than pays, the adversary begins anew before the wipe. The product rises to one
    maximum and then falls. With k the fall of eta and x = t/lost its derivative vanishes where
    x + ln x = 1/k - 1 - ln(lost/t_0), t_0 the flat part of eta: Wright's omega function. It rises in all
    of the flat part.
    """
    from scipy.special import wrightomega  # here: a scenario without wipes does not wait for scipy

    flat = FLAT_INTERVAL * step
    gone = np.clip(lost, 1e-280, 1e280)  # a closed link is dealt with below
    best = gone * wrightomega(1 / _fall(at_1000) - 1 - np.log(gone / flat))
    block = np.minimum(room, np.maximum(flat, best))
    share = block / (block + gone) * diloco_efficiency(block / step, at_1000)
    return np.asarray(np.where(np.isfinite(lost), share, 0.0), dtype=np.float64)
