"""How far each profile's replayed noise may be from the engine's: bounds in z-units, token by token.

The replay (ullage.sampling) reproduces the engine's integers and uniforms bit for bit and takes logarithms in
float64. What is left is the rounding of the engine's own arithmetic: the two logarithms of
g = -log E, the division by the temperature, and the sum z + g. Derivations: docs/proofs/admissible-sets.md,
section 7. `magnitude` bounds |z| and |z + g| of the tokens that can win, as the engine holds them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.audit.admissible.filter_edges import Floats
from ullage.audit.admissible.sets import NoiseInterval
from ullage.errors import UsageError

HALF_UNIT_32: Final = 2.0**-24  # relative error of one float32 rounding
HALF_UNIT_64: Final = 2.0**-53
# What libraries promise for log, log1p and exp: CUDA 1-2 units in the last place, vectorised CPU code 4.
_LIBRARY_UNITS: Final = 4
_USUAL_MAGNITUDE: Final = 64.0
_FLOAT32: Final = frozenset({"murmur3-gumbel/f32"})
_FLOAT64: Final = frozenset(
    {"murmur3-gumbel/f64", "murmur3-gumbel-53/f64", "splitmix64-gumbel", "sglang-murmur"}
)
_RACES: Final = frozenset({"torch-exponential"})
_NONE: Final = frozenset({"greedy", "inverse-transform"})


def magnitude(logits: NDArray[np.float32], temperature: float) -> float:
    """A bound on |z| and |z + g| of the tokens of these rows (T, V) that can win: what `noise_error` takes.

    A winner's score is at least the largest z plus its noise, and noise lies between -4 and 37 for uniforms
    of 53 bits, so its z is at most 41 below the largest.
    """
    if not len(logits):
        return _USUAL_MAGNITUDE
    largest = float(np.abs(logits.max(axis=1).astype(np.float64)).max()) / temperature
    return max(_USUAL_MAGNITUDE, largest + 82.0)


def noise_error(profile: str, noise: Floats, magnitude: float = _USUAL_MAGNITUDE) -> NDArray[np.float64]:
    """A bound on |engine's score - (z + noise)| for each noise value g, any shape; inf stays inf.

    Raises UsageError for a profile without a bound.
    """
    size = np.abs(noise)
    if profile in _NONE:
        return np.zeros_like(size)
    if profile in _RACES:
        # q is replayed exactly. exp (units), its argument (magnitude), normalising and dividing by q: 1 each.
        return np.full_like(size, (2 * _LIBRARY_UNITS + 2 + 2 * magnitude) * HALF_UNIT_32)
    if profile in _FLOAT32 or profile in _FLOAT64:
        unit = HALF_UNIT_32 if profile in _FLOAT32 else HALF_UNIT_64
        # A relative error of E is an absolute one of log E; the second log errs by its units; then z/T, z+g.
        rounding = 2 * _LIBRARY_UNITS * (1 + np.maximum(size, 1.0)) + 2 * magnitude
        return np.where(np.isfinite(noise), rounding * unit, 0.0)
    known = ", ".join(sorted(_FLOAT32 | _FLOAT64 | _RACES | _NONE))
    raise UsageError(
        f"There is no bound on the noise of sampler profile {profile[:80]!r}, so no distance to the "
        f"reference means anything: it can be neither calibrated nor bounded. Those with a bound are {known}."
    )


def noise_interval(profile: str, noise: Floats, magnitude: float = _USUAL_MAGNITUDE) -> NoiseInterval:
    """`noise` with `noise_error` on both sides."""
    error = noise_error(profile, noise, magnitude)
    return NoiseInterval(noise - error, noise + error)


def rounded_uniform_interval(noise: Floats, magnitude: float = _USUAL_MAGNITUDE) -> NoiseInterval:
    """For an engine that draws u in float32 while the replay has it exactly: g = -log(-log1p(-u)).

    The conversion and the addition of 1/2 leave |du| <= 2^-23 u. Near 0 that moves g by 2^-23; near 1 it is
    multiplied by u / ((1 - u) E), and where 1 - u <= 2^-23 the engine may hold u = 1 and noise -inf: the
    lower end is -inf there. The error depends on the value, and no single number below infinity bounds it.
    """
    exponential = np.exp(-noise)
    uniform = -np.expm1(-exponential)
    step = 2.0**-23 * uniform
    with np.errstate(divide="ignore"):
        lower = -np.log(-np.log1p(-np.minimum(uniform + step, 1.0)))
        upper = -np.log(-np.log1p(-(uniform - step)))
    error = noise_error("murmur3-gumbel/f32", noise, magnitude)
    return NoiseInterval(lower - error, upper + error)
