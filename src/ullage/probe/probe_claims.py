"""The claims of a probe. No tap stands between, so they rest on the verifier alone, and say less."""

from __future__ import annotations

import math

from ullage.audit.bounds.statistics import clopper_pearson
from ullage.claims import Bound, Claim, Evidence, Interval, Trust
from ullage.probe.run import ProbeResult

_METHOD = "teacher-forced replay of a provider's answers, v1"
_COMMON = (
    "The provider treats the probe like anybody else: one that recognises it can answer it honestly, and "
    "others otherwise.",
    "The answers came from the provider that was asked (TLS, names and routes are not checked by us).",
)


def probe_claims(result: ProbeResult) -> tuple[Claim, ...]:
    """All claims of a result, the evidence first."""
    return (_evidence(result), _excluded(result), _rate(result), *_spent(result))


def _noise_assumption(result: ProbeResult) -> str:
    noise = result.noise
    return (
        f"Honest arithmetic flips a token to a near-tie with at most {noise.kappa:g} times the probability "
        f"under the noisiest session ({noise.source}), and says anything else for at most {noise.floor:g} of "
        "the tokens."
    )


def _evidence(result: ProbeResult) -> Claim:
    known = result.evidence.tokens > 0
    return Claim(
        name="probe.deviation_evidence",
        value=result.evidence.highest if known else None,
        unit="natural logarithm of the e-value against the declared configuration",
        bound=Bound.LOWER,
        confidence=None,
        evidence=Evidence.PROVEN if known else Evidence.NOT_COVERED,
        assumptions=(
            _noise_assumption(result),
            *_COMMON,
            f"The alarm is at ln(1/alpha) = {-math.log(result.alpha):.4g}: false ones with at most "
            f"{result.alpha:g}, however long one asks.",
        ),
        trusts=(Trust.VERIFIER,),
        subject=result.model_digest,
        method="e-process over near-ties and configurations, v1",
        sample=_sample(result),
    )


def _excluded(result: ProbeResult) -> Claim:
    gone = sorted(name for name, found in result.excluded.items() if found)
    left = sorted(name for name, found in result.excluded.items() if not found)
    return Claim(
        name="probe.excluded_configurations",
        value=float(len(gone)),
        unit=f"of {len(result.excluded)} deviating configurations",
        bound=Bound.LOWER,
        confidence=1 - result.alpha,
        evidence=Evidence.PROVEN,
        assumptions=(
            "Each configuration is as the auditor runs it: other ways to round, other templates and "
            "instructions are other configurations.",
            _noise_assumption(result),
            *_COMMON,
            "The confidence is that of each exclusion, not of all of them together.",
        ),
        trusts=(Trust.VERIFIER,),
        subject=result.model_digest,
        method="e-process against each configuration, betting on the declared one, v1",
        sample=f"excluded: {', '.join(gone) or 'none'}; not excluded: {', '.join(left) or 'none'}",
    )


def _rate(result: ProbeResult) -> Claim:
    rate = clopper_pearson(result.mismatches, result.evidence.tokens, 0.95)
    known = rate.tokens > 0
    return Claim(
        name="token.mismatch_rate",
        value=rate.value if known else None,
        interval=Interval(low=rate.low, high=rate.high, confidence=0.95) if known else None,
        unit="share of tokens",
        bound=Bound.ESTIMATE,
        confidence=0.95 if known else None,
        evidence=Evidence.MEASURED if known else Evidence.NOT_COVERED,
        assumptions=(
            "Tokens count as independent trials; those of one answer are correlated.",
            "A probe that stops at the first strong evidence finds a higher rate than a longer one would.",
            *_COMMON,
        ),
        trusts=(Trust.VERIFIER,),
        subject=result.model_digest,
        method=_METHOD,
        sample=_sample(result),
    )


def _spent(result: ProbeResult) -> list[Claim]:
    purse = result.purse
    found = [
        Claim(
            name="probe.tokens_spent",
            value=float(purse.tokens),
            unit="tokens of prompts and answers",
            bound=Bound.UPPER,
            evidence=Evidence.MEASURED,
            assumptions=("The provider bills what its answers say; failed attempts cost nothing.",),
            method=_METHOD,
            sample=f"{purse.requests} requests",
        )
    ]
    if purse.prices.prompt or purse.prices.output:
        found.append(
            found[0].model_copy(
                update={"name": "probe.money_spent", "value": purse.money, "unit": "of the prices' currency"}
            )
        )
    return found


def _sample(result: ProbeResult) -> str:
    return (
        f"{result.evidence.tokens} tokens of {result.evidence.answers} answers, {result.mismatches} "
        f"mismatches, sampled with {result.profile}"
    )
