"""A baseline to compare with: the largest activations of a run of tokens, held by a polynomial.

After Ong et al., "TOPLOC: A Locality Sensitive Hashing Scheme for Trustless Verifiable Inference" (2025),
written anew from the paper. Of a run's flattened states in bfloat16, the indices of the k largest by
magnitude (reduced by a modulus under which they stay apart) and the bits of their values are points of a
polynomial over GF(65,497), whose k coefficients are the proof: 2 + 2 k bytes. A verifier evaluates it at
the indices that are largest in his own states and compares exponents and mantissas. Nothing is committed
to, and nothing is drawn: who computes the states makes the proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.errors import UsageError

PRIME: Final = 65_497
TOP: Final = 128
"""Activations of a run, as published; a run has 32 tokens there."""
RUN: Final = 32
_MANTISSA: Final = 128
MAX_EXPONENT_MISMATCHES: Final = TOP - 90
MAX_MEAN: Final = 10.0
MAX_MEDIAN: Final = 8.0
"""The published limits, for 128 activations."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Proof:
    """Coefficients (k,) of the polynomial, lowest degree first, and the indices' modulus."""

    modulus: int
    coefficients: Integers

    @property
    def size(self) -> int:
        """Bytes."""
        return 2 + 2 * len(self.coefficients)


@dataclass(frozen=True)
class Comparison:
    """How many of k exponents differ, and the errors of the other mantissas, in 128ths of an octave."""

    exponent_mismatches: int
    mean: float
    median: float
    values: int

    @property
    def score(self) -> float:
        """Mean error of a mantissa, a value with another exponent counted as a whole octave."""
        matched = self.values - self.exponent_mismatches
        return (matched * self.mean + self.exponent_mismatches * _MANTISSA) / self.values

    @property
    def accepted(self) -> bool:
        """Under the published limits, which are for runs of 32 tokens and 128 values."""
        return (
            self.exponent_mismatches <= MAX_EXPONENT_MISMATCHES
            and self.mean <= MAX_MEAN
            and self.median <= MAX_MEDIAN
        )


def prove(states: NDArray[np.float32], top: int = TOP) -> Proof:
    """The proof of a run's states (T, H). Raises UsageError if there are fewer values than `top`."""
    indices, values = _largest(states, top)
    modulus = _separating_modulus(indices)
    return Proof(modulus, _interpolate(indices % modulus, values % PRIME))


def compare(proof: Proof, states: NDArray[np.float32]) -> Comparison:
    """A proof against the verifier's own states (T, H) of the same run."""
    indices, values = _largest(states, len(proof.coefficients))
    said = _evaluate(proof.coefficients, indices % proof.modulus)
    same = (said >> 7) == (values >> 7)  # sign and exponent
    errors = np.abs((said & 127) - (values & 127))[same]
    return Comparison(
        int(np.count_nonzero(~same)),
        float(errors.mean()) if errors.size else float(_MANTISSA),
        float(np.median(errors)) if errors.size else float(_MANTISSA),
        len(values),
    )


def _largest(states: NDArray[np.float32], top: int) -> tuple[Integers, Integers]:
    """Flat indices of the `top` largest values and their bfloat16 bits; ties go to the lower index."""
    flat = np.ascontiguousarray(states, np.float32).reshape(-1)
    if not 1 <= top <= len(flat):
        raise UsageError(f"A run of {len(flat)} activations has no {top} largest.")
    bits = flat.view(np.uint32).astype(np.int64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to the nearest bfloat16, ties to even
    order = np.argsort(-(bits & 0x7FFF), kind="stable")[:top]
    return order.astype(np.int64), bits[order]


def _separating_modulus(indices: Integers) -> int:
    for modulus in range(PRIME, 1 << 15, -1):
        if len(np.unique(indices % modulus)) == len(indices):
            return modulus
    raise UsageError("No modulus keeps these indices apart.")


def _interpolate(x: Integers, y: Integers) -> Integers:
    """Coefficients of the polynomial through (x, y) over GF(PRIME), by Newton's divided differences."""
    count = len(x)
    divided = y.copy()
    for order in range(1, count):
        gaps = (x[order:] - x[: count - order]) % PRIME
        inverse = np.array([pow(int(gap), -1, PRIME) for gap in gaps], np.int64)
        divided[order:] = (divided[order:] - divided[order - 1 : -1]) * inverse % PRIME
    coefficients = np.zeros(count, np.int64)
    for place in range(count - 1, -1, -1):  # Horner: multiply by (X - x_place), add the next difference
        shifted = np.concatenate([[0], coefficients[:-1]])
        coefficients = (shifted - coefficients * x[place]) % PRIME
        coefficients[0] = (coefficients[0] + divided[place]) % PRIME
    return coefficients


def _evaluate(coefficients: Integers, x: Integers) -> Integers:
    found = np.zeros(len(x), np.int64)
    for coefficient in coefficients[::-1]:
        found = (found * x + coefficient) % PRIME
    return found
