"""The noise model P~(token | prefix, seed): what an honest server's other arithmetic may deliver.

The reference's noised scores s_v = z_v / T + g_v have a winner w and, for every other token, a gap
d_v = T (s_w - s_v) in raw logit units. An honest server has logits z + e with small errors e, and takes
v instead of w iff e_v - e_w > d_v. So one curve describes the noise:

    f(d) = P(e_v - e_w > d),        f(0) = 1/2, falling,

here the upper tail of Student's t with a fitted scale and fitted degrees of freedom: heavy tails when the
data have them, close to a Gaussian when not. It is the *one-sided* tail, half of P(|e_v - e_w| > d).

Several near-ties compete for one place, so flip probabilities do not add. Each candidate's *odds against
the winner* a_v = f / (1 - f) do, as in Luce, "Individual Choice Behavior" (1959):

    P~(v) = a_v / (1 + sum of a),        P~(w) = 1 / (1 + sum of a).

That sums to one by construction and never passes it, gives exactly f(d) for one candidate, exactly 1/(m+1)
each for m candidates tied with the winner, and the sum of f to first order where flips are rare. The
candidates are those within `cutoff`, at most as many as the columns given; every other token has
P~ = 0 and lives on the code's floor (`codelength`). EOS is a token like any other.

Whatever the fit, the codelength bounds hold: a bad fit makes the figures larger, never wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize, minimize_scalar
from scipy.special import stdtr

from ullage.audit.bounds.codelength import DEFAULT_FLOOR, token_codelength
from ullage.errors import MalformedError, UndecidedError, UsageError

Array = NDArray[np.float64]

_VERSION: Final = 1
_FAMILY: Final = "student-t"
_LEAST_DEGREES: Final = 0.5
_MOST_DEGREES: Final = 200.0
# The weak priors of the fit: they decide only where the data hold next to no flips.
_USUAL_DEGREES: Final = 4.0
_SPREAD_OF_LOG_DEGREES: Final = 1.5
_SPREAD_OF_LOG_SESSION_SCALE: Final = 1.0


@dataclass(frozen=True)
class FlipCurve:
    """f(d) = P(T_nu > d / scale) up to `cutoff`, 0 beyond; d, scale and cutoff in raw logit units."""

    scale: float
    degrees_of_freedom: float
    cutoff: float

    def __post_init__(self) -> None:
        if not (0 < self.scale < math.inf and 0 < self.cutoff < math.inf):
            raise UsageError("A flip curve's scale and cutoff are positive numbers.")
        if not _LEAST_DEGREES <= self.degrees_of_freedom <= _MOST_DEGREES:
            raise UsageError(f"Degrees of freedom lie in [{_LEAST_DEGREES}, {_MOST_DEGREES}].")

    def probability(self, gap: Array) -> Array:
        """f at each gap, any shape; gaps are >= 0, inf where there is no candidate."""
        gap = np.asarray(gap, dtype=np.float64)
        flips = np.zeros(gap.shape)
        near = gap <= self.cutoff
        flips[near] = stdtr(self.degrees_of_freedom, -gap[near] / self.scale)
        return flips

    def inflated(self, factor: float) -> FlipCurve:
        """The curve of noise that is `factor` times as large."""
        return FlipCurve(self.scale * factor, self.degrees_of_freedom, self.cutoff)


@dataclass(frozen=True)
class HonestTokens:
    """Honest tokens of a calibration, one row a token.

    gaps (T, C): gaps of the C nearest candidates, ascending, inf where there are fewer.
    chosen (T,): -1 the reference's winner was delivered, j the candidate of column j, C another token.
    sessions (T,): which session (server run x prompt) the token belongs to.
    """

    gaps: Array
    chosen: NDArray[np.int64]
    sessions: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.gaps.ndim != 2 or not len(self.gaps) == len(self.chosen) == len(self.sessions):
            raise UsageError("Gaps (T, C), choices (T,) and sessions (T,) have one row a token.")
        _check_gaps(self.gaps)
        if np.any((self.chosen < -1) | (self.chosen > self.gaps.shape[1])):
            raise UsageError("A choice is -1 (the winner), a column of the gaps, or their number (another).")

    @property
    def mismatches(self) -> int:
        """How many tokens are not the reference's own."""
        return int(np.count_nonzero(self.chosen >= 0))

    def rows(self, kept: NDArray[np.bool_]) -> HonestTokens:
        """Those tokens alone for which `kept`, `(T,)`, is true."""
        return HonestTokens(self.gaps[kept], self.chosen[kept], self.sessions[kept])


@dataclass(frozen=True)
class NoiseModel:
    """P~ with everything it takes to evaluate it again.

    `curve` is the fit to all sessions; `supremum` the curve of the noisiest session, which is what the
    alarm's null hypothesis is made of; the counts say what it was fitted to.
    """

    curve: FlipCurve
    supremum: FlipCurve
    vocabulary_size: int
    floor: float
    tokens: int
    mismatches: int
    sessions: int

    def __post_init__(self) -> None:
        if self.vocabulary_size < 2 or not 0 < self.floor < 1:
            raise UsageError("A noise model has a vocabulary of two tokens or more and a floor in (0, 1).")
        if self.supremum.scale < self.curve.scale:
            raise UsageError("The noisiest session's curve cannot lie below the fit to all of them.")

    def probabilities(self, gaps: Array) -> tuple[Array, Array]:
        """P~ of the winner, (T,), and of each candidate, (T, C), from their gaps (T, C)."""
        return _luce(self.curve, gaps)

    def probability_of(self, gaps: Array, chosen: NDArray[np.int64]) -> Array:
        """P~_t(y_t), shape (T,); `chosen` as in `HonestTokens`."""
        winner, candidates = self.probabilities(gaps)
        return _pick(winner, candidates, chosen)

    def mismatch_probability(self, gaps: Array, inflation: float = 1.0) -> Array:
        """P~ of any token but the winner, (T,); with noise `inflation` times as large (an alternative)."""
        return _mismatch(self.curve.inflated(inflation), gaps)

    def supremum_mismatch_probability(self, gaps: Array) -> Array:
        """The same under the noisiest session's curve: the supremum, since it rises with the scale."""
        return _mismatch(self.supremum, gaps)

    def to_dict(self) -> dict[str, object]:
        """For a calibration file: numbers as decimal strings that round-trip, canonical under RFC 8785."""
        return {
            "version": _VERSION,
            "family": _FAMILY,
            "scale": repr(self.curve.scale),
            "degrees_of_freedom": repr(self.curve.degrees_of_freedom),
            "cutoff": repr(self.curve.cutoff),
            "supremum_scale": repr(self.supremum.scale),
            "floor": repr(self.floor),
            "vocabulary_size": self.vocabulary_size,
            "tokens": self.tokens,
            "mismatches": self.mismatches,
            "sessions": self.sessions,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> NoiseModel:
        """The inverse of `to_dict`. MalformedError when it is not one of this version."""
        if _count(data.get("version")) != _VERSION or data.get("family") != _FAMILY:
            raise MalformedError(f"The noise model is not of version {_VERSION}, family {_FAMILY}.")
        reals = ("scale", "degrees_of_freedom", "cutoff", "supremum_scale", "floor")
        counts = ("vocabulary_size", "tokens", "mismatches", "sessions")
        if set(data) != {"version", "family", *reals, *counts}:
            raise MalformedError("The noise model does not have exactly the fields of its version.")
        scale, degrees, cutoff, supremum_scale, floor = (_real(data[name]) for name in reals)
        vocabulary_size, tokens, mismatches, sessions = (_count(data[name]) for name in counts)
        try:
            return cls(
                curve=FlipCurve(scale, degrees, cutoff),
                supremum=FlipCurve(supremum_scale, degrees, cutoff),
                vocabulary_size=vocabulary_size,
                floor=floor,
                tokens=tokens,
                mismatches=mismatches,
                sessions=sessions,
            )
        except UsageError as error:
            raise MalformedError(f"The noise model is not valid: {error}") from error


def fit_noise_model(
    data: HonestTokens, vocabulary_size: int, cutoff: float, floor: float = DEFAULT_FLOOR
) -> NoiseModel:
    """P~ by maximum likelihood, which is the least codelength of the honest tokens themselves.

    Two weak priors keep the fit finite where there are few flips or none: half a flip at the smallest gap
    seen, and log degrees of freedom normal about log 4 with spread 1.5. Each session then gets a scale of
    its own (a posteriori, its logarithm normal about the common one with spread 1, so that a session
    without near-ties says nothing); the largest makes the supremum curve.

    `cutoff` is the largest gap of a candidate, in raw logits: some 30 times the noise's scale is generous.
    UndecidedError if no token has a candidate within it.
    """
    has_candidate: NDArray[np.bool_] = np.any(data.gaps <= cutoff, axis=1)
    near = data.rows(has_candidate)
    if not len(near.gaps):
        raise UndecidedError(
            f"None of the {len(data.gaps)} calibration tokens has a candidate within {cutoff} logits of its "
            "winner; record more honest tokens, or raise the cutoff."
        )
    cells = _Cells.of(near, vocabulary_size, cutoff, floor)
    curve = _fit_curve(cells)
    scales = [curve.scale]
    for session in np.unique(near.sessions):
        own = _Cells.of(near.rows(near.sessions == session), vocabulary_size, cutoff, floor)
        scales.append(_fit_session_scale(own, curve))
    return NoiseModel(
        curve=curve,
        supremum=FlipCurve(max(scales), curve.degrees_of_freedom, cutoff),
        vocabulary_size=vocabulary_size,
        floor=floor,
        tokens=len(data.gaps),
        mismatches=data.mismatches,
        sessions=len(np.unique(data.sessions)),
    )


@dataclass(frozen=True)
class IsotonicCurve:
    """A falling step function of the gap without a family: `values[i]` on [edges[i], edges[i+1]).

    Left of the first edge the first value holds, right of the last the last. Between two data points a
    falling curve lies between their values; the step takes the upper one.
    """

    edges: Array
    values: Array

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.values) or not len(self.edges):
            raise UsageError("A step function has one value for each of its edges.")
        if np.any(np.diff(self.edges) <= 0) or np.any(np.diff(self.values) > 0):
            raise UsageError("A falling step function has rising edges and falling values.")

    def probability(self, gap: Array) -> Array:
        """P(mismatch | gap to the nearest candidate), any shape."""
        step = np.searchsorted(self.edges, np.asarray(gap, dtype=np.float64), side="right") - 1
        picked: Array = self.values[np.maximum(step, 0)]
        return picked

    @classmethod
    def fit(cls, gap: Array, mismatch: NDArray[np.bool_]) -> IsotonicCurve:
        """Maximum likelihood over all falling curves: pool adjacent violators (Ayer et al., 1955)."""
        finite = np.isfinite(gap)
        if not finite.any():
            raise UndecidedError("No calibration token has a candidate beside its winner.")
        edges, place = np.unique(gap[finite], return_inverse=True)
        count = np.bincount(place)
        share = np.bincount(place, weights=mismatch[finite]) / count
        fitted = isotonic_regression(share, weights=count, increasing=False)
        values = np.clip(np.asarray(fitted.x, dtype=np.float64), 0.0, 1.0)
        kept = np.concatenate([[True], np.diff(values) < 0])
        return cls(edges[kept], values[kept])

    @classmethod
    def supremum(cls, curves: Sequence[IsotonicCurve]) -> IsotonicCurve:
        """The pointwise largest of several curves (one a session)."""
        if not curves:
            raise UndecidedError("There is no calibration session to take the supremum over.")
        edges = np.unique(np.concatenate([curve.edges for curve in curves]))
        values = np.max([curve.probability(edges) for curve in curves], axis=0)
        return cls(edges, values)


def _luce(curve: FlipCurve, gaps: Array) -> tuple[Array, Array]:
    gaps = np.asarray(gaps, dtype=np.float64)
    _check_gaps(gaps)
    flips = curve.probability(gaps)
    odds = flips / (1 - flips)  # at most 1, since f(d) <= f(0) = 1/2
    total = 1 + odds.sum(axis=1)
    return 1 / total, odds / total[:, None]


def _mismatch(curve: FlipCurve, gaps: Array) -> Array:
    _, candidates = _luce(curve, gaps)
    # Not 1 - winner, which would lose the digits of a small probability.
    total: Array = candidates.sum(axis=1)
    return total


def _pick(winner: Array, candidates: Array, chosen: NDArray[np.int64]) -> Array:
    chosen = np.asarray(chosen, dtype=np.int64)
    width = candidates.shape[1]
    if len(chosen) != len(winner) or np.any((chosen < -1) | (chosen > width)):
        raise UsageError("A choice is -1 (the winner), a column of the gaps, or their number (another).")
    table = np.concatenate([winner[:, None], candidates, np.zeros((len(winner), 1))], axis=1)
    picked: Array = np.take_along_axis(table, chosen[:, None] + 1, axis=1)[:, 0]
    return picked


@dataclass(frozen=True)
class _Cells:
    """Calibration rows in the form that the fit reads hundreds of times: one cell a (row, candidate).

    Gaps are rounded down to a grid of 0.5 %, so that a curve is evaluated on the grid only; in the fit,
    never in the model.
    """

    grid: Array  # (G,) gaps
    place: NDArray[np.int64]  # (M,) each cell's place on the grid, rows one after another
    starts: NDArray[np.int64]  # (R,) each row's first cell; no row is empty
    picked_rows: NDArray[np.int64]  # rows that delivered one of their candidates, and
    picked_cells: NDArray[np.int64]  # which
    other_rows: NDArray[np.int64]  # rows that delivered a token beyond the cutoff
    cutoff: float
    floor: float
    vocabulary_size: int

    @classmethod
    def of(cls, data: HonestTokens, vocabulary_size: int, cutoff: float, floor: float) -> _Cells:
        near = data.gaps <= cutoff
        grid = cutoff * np.geomspace(1e-8, 1, 3700)
        number = np.cumsum(near).reshape(near.shape) - 1
        width = near.shape[1]
        column = np.clip(data.chosen, 0, width - 1)
        rows = np.arange(len(near))
        picked = (data.chosen >= 0) & (data.chosen < width) & near[rows, column]
        return cls(
            grid=grid,
            place=np.maximum(np.searchsorted(grid, data.gaps[near], side="right") - 1, 0),
            starts=np.concatenate([[0], np.cumsum(near.sum(axis=1))[:-1]]),
            picked_rows=rows[picked],
            picked_cells=number[rows, column][picked],
            other_rows=rows[(data.chosen >= 0) & ~picked],
            cutoff=cutoff,
            floor=floor,
            vocabulary_size=vocabulary_size,
        )

    def cost(self, curve: FlipCurve) -> float:
        """Codelength of the rows in nats."""
        flips = curve.probability(self.grid)
        odds = (flips / (1 - flips))[self.place]
        total = 1 + np.add.reduceat(odds, self.starts)
        share = np.ones(len(total))
        share[self.picked_rows] = odds[self.picked_cells]
        share[self.other_rows] = 0.0
        bits = token_codelength(share / total, self.vocabulary_size, self.floor)
        return math.log(2) * float(bits.sum())


def _fit_curve(cells: _Cells) -> FlipCurve:
    smallest = cells.grid[cells.place.min()]
    cutoff = cells.cutoff

    def curve_at(parameters: Sequence[float]) -> FlipCurve:
        degrees = min(max(math.exp(parameters[1]), _LEAST_DEGREES), _MOST_DEGREES)
        return FlipCurve(math.exp(parameters[0]), degrees, cutoff)

    def objective(parameters: Sequence[float]) -> float:
        curve = curve_at(parameters)
        half_flip = 0.5 * math.log(max(float(curve.probability(np.array(smallest))), 1e-300))
        prior = 0.5 * ((parameters[1] - math.log(_USUAL_DEGREES)) / _SPREAD_OF_LOG_DEGREES) ** 2
        return cells.cost(curve) - half_flip + prior

    # Far from the optimum the floor makes the likelihood flat: start from the best of a few scales.
    top, usual = math.log(cutoff), math.log(_USUAL_DEGREES)
    start = min(((top + shift, usual) for shift in (-12, -9, -7, -5, -3.4, -2, -1)), key=objective)
    limits = [(top - 18, top + 3), (math.log(_LEAST_DEGREES), math.log(_MOST_DEGREES))]
    options = {"xatol": 1e-3, "fatol": 1e-3, "maxiter": 300}
    best = minimize(objective, start, method="Nelder-Mead", bounds=limits, options=options)
    return curve_at([float(value) for value in best.x])


def _fit_session_scale(cells: _Cells, common: FlipCurve) -> float:
    def objective(shift: float) -> float:
        return (
            cells.cost(common.inflated(math.exp(shift))) + 0.5 * (shift / _SPREAD_OF_LOG_SESSION_SCALE) ** 2
        )

    best = minimize_scalar(objective, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-2})
    return common.scale * math.exp(float(best.x))


def _check_gaps(gaps: Array) -> None:
    if gaps.ndim != 2 or np.any(np.isnan(gaps)) or np.any(gaps < 0):
        raise UsageError("Gaps have the shape (T, C) and are not negative; inf where there is no candidate.")


def _real(value: object) -> float:
    try:
        number = float(value) if isinstance(value, str) and len(value) <= 32 else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise MalformedError("A real number of a noise model is a decimal string, and finite.")
    return number


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise MalformedError("A count of a noise model is an integer from 0 to 2^53.")
    return value
