"""The claims of a check of fingerprints."""

from __future__ import annotations

import math

import numpy as np

from ullage.claims import Bound, Claim, Interval, Trust
from ullage.claims import Evidence as Kind
from ullage.fingerprint.check import Checked
from ullage.fingerprint.projection import ROUNDING_VARIANCE

_METHOD = "committed hidden states, projected on directions drawn afterwards, v1"
_SAYS_LITTLE = (
    "Matching states show that the declared model was run over this transcript at some time before the "
    "commitment, not that the tokens were drawn from them: beside them the tokens are audited.",
)


def fingerprint_claims(result: Checked, model: str) -> tuple[Claim, ...]:
    """Evidence, distance, coverage, and what the prover could have said with all of it."""
    return (
        _evidence(result, model),
        _distance(result, model),
        _coverage(result, model),
        _channel(result, model),
    )


def _evidence(result: Checked, model: str) -> Claim:
    tolerance, evidence = result.terms.tolerance, result.evidence
    known = evidence.tokens > 0
    return Claim(
        name="fingerprint.deviation_evidence",
        value=evidence.highest if known else None,
        unit="natural logarithm of the e-value against the declared model",
        bound=Bound.LOWER,
        evidence=Kind.PROVEN if known else Kind.NOT_COVERED,
        assumptions=(
            f"Honest states lie as near to the reference's as in {tolerance.sessions} calibrated sessions of "
            f"{tolerance.tokens} tokens (the noisiest one, with a margin).",
            f"The alarm is at ln(1/alpha) = {-math.log(result.terms.alpha):.4g}: false ones with at most "
            f"{result.terms.alpha:g} over the verifier's own coins.",
            *_SAYS_LITTLE,
        ),
        trusts=(Trust.TAP, Trust.VERIFIER),
        subject=model,
        method=_METHOD,
        sample=_sample(result),
    )


def _distance(result: Checked, model: str) -> Claim:
    """Root mean square distance, bootstrapped by answers."""
    if not result.squares:
        return Claim(
            name="fingerprint.distance", value=None, unit="of the tolerated distance", bound=Bound.ESTIMATE,
            evidence=Kind.NOT_COVERED, subject=model, method=_METHOD, sample=_sample(result),
        )  # fmt: skip
    scale = result.terms.tolerance.rms / result.terms.tolerance.step
    generator = np.random.default_rng(0)
    answers = len(result.squares)
    drawn = generator.integers(0, answers, (1000, answers))
    sums = np.array([one.sum() for one in result.squares])
    counts = np.array([len(one) for one in result.squares])

    def relative(total: float, tokens: float) -> float:
        return math.sqrt(max(total / tokens - ROUNDING_VARIANCE, 0.0)) / scale

    value = relative(float(sums.sum()), float(counts.sum()))
    again = [relative(float(sums[one].sum()), float(counts[one].sum())) for one in drawn]
    low, high = (float(np.quantile(again, share)) for share in (0.025, 0.975))
    return Claim(
        name="fingerprint.distance",
        value=value,
        interval=Interval(low=min(low, value), high=max(high, value), confidence=0.95),
        unit="of the tolerated root mean square distance",
        bound=Bound.ESTIMATE,
        confidence=0.95,
        evidence=Kind.MEASURED,
        assumptions=(
            "Answers are alike in noise; the interval is bootstrapped over them.",
            "Differences beyond 128 steps look smaller than they are.",
        ),
        trusts=(Trust.TAP, Trust.VERIFIER),
        subject=model,
        method=_METHOD,
        sample=_sample(result),
    )


def _coverage(result: Checked, model: str) -> Claim:
    return Claim(
        name="fingerprint.coverage",
        value=result.covered / result.drawn if result.drawn else None,
        unit="share of the records drawn",
        bound=Bound.LOWER,
        evidence=Kind.MEASURED if result.drawn else Kind.NOT_COVERED,
        assumptions=("A prover without a commitment is not accused: states are forgotten to make room.",),
        trusts=(Trust.TAP, Trust.VERIFIER),
        subject=model,
        method=_METHOD,
        sample=", ".join(
            f"record {counter}: {fault.value}" for counter, fault in [*result.faults.items()][:10]
        ),
    )


def _channel(result: Checked, model: str) -> Claim:
    tokens = result.evidence.tokens
    return Claim(
        name="fingerprint.channel",
        value=result.received_bits / tokens if tokens else None,
        unit="bits/token from the prover to the verifier",
        bound=Bound.UPPER,
        evidence=Kind.PROVEN if tokens else Kind.NOT_COVERED,
        assumptions=(
            "Every bit of the list of commitments, of answers and openings could be the prover's choice.",
            "Headers and times of the answers are not counted.",
            "They reach the verifier and nobody else; what he publishes is a verdict.",
        ),
        trusts=(Trust.VERIFIER, Trust.PERIMETER),
        subject=model,
        method="all bits received, v1",
        sample=f"{result.received_bits} bits for {tokens} tokens, {result.opened} states opened",
    )


def _sample(result: Checked) -> str:
    return (
        f"{result.evidence.tokens} tokens of {result.covered} answers, {result.terms.coordinates} bytes a "
        f"token, {result.opened} states opened"
    )
