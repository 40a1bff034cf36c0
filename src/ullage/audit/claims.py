"""The claims that an audit makes of its own; those about the log itself are the log's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ullage.audit.bounds.statistics import Rate
from ullage.claims import Bound, Claim, Evidence, Interval, Trust, Window

TRUSTS = (Trust.TAP, Trust.VERIFIER)
UNCOMMITTED = "The verifier drew its records without having read them; no commitment in the log shows that."
_EIGHT_BIT = (
    "Weights rounded to 8 bits deviate only a little more often than honest bfloat16 arithmetic does, and "
    "less often than the limit, so this rate does not detect them."
)


@dataclass(frozen=True)
class Context:
    """What all claims of one audit share: the log and model they speak of, the window, the digests."""

    log_id: str
    model_digest: str
    window: Window | None
    inputs: Mapping[str, str]


def mismatch_rate(
    rate: Rate,
    clusters: tuple[float, float] | None,
    context: Context,
    *,
    sample: str,
    dtype: str,
    committed: bool,
) -> Claim:
    """`token.mismatch_rate`: the share of delivered tokens that are not the reference's own choice.

    `clusters` is the interval over resampled records, if there is one; `sample` says what was audited.
    """
    assumptions = [
        "Audited tokens count as independent trials; tokens of one answer are correlated, so the interval "
        "over whole records in the sample's description is the wider one to look at.",
        "The reference's own arithmetic is right: it runs the declared weights on the verifier's machine.",
        "The declared model itself is honest; a payload that the prompt asks for is not a mismatch.",
    ]
    if not committed:
        assumptions.append(UNCOMMITTED)
    if dtype == "bfloat16":
        assumptions.append(_EIGHT_BIT)
    spread = (
        "resampling whole records says nothing about a sample without mismatches"
        if clusters is None
        else f"resampling whole records gives [{clusters[0]:.4g}, {clusters[1]:.4g}]"
    )
    return rate_claim(
        rate,
        context,
        sample=f"{sample}; {spread}" if rate.tokens else sample,
        assumptions=tuple(assumptions),
        method="recomputation with seeded noise, Clopper–Pearson, v1",
    )


def rate_claim(
    rate: Rate, context: Context, *, sample: str, assumptions: tuple[str, ...], method: str
) -> Claim:
    """`token.mismatch_rate`, however the mismatches were found."""
    known = rate.tokens > 0
    return Claim(
        name="token.mismatch_rate",
        value=rate.value if known else None,
        interval=Interval(low=rate.low, high=rate.high, confidence=rate.confidence) if known else None,
        unit="share of tokens",
        bound=Bound.ESTIMATE,
        confidence=rate.confidence if known else None,
        evidence=Evidence.MEASURED if known else Evidence.NOT_COVERED,
        assumptions=assumptions,
        trusts=TRUSTS,
        subject=context.model_digest,
        window=context.window,
        method=method,
        sample=sample,
        inputs=dict(context.inputs),
    )


def outside_fraction(outside: int, total: int, context: Context) -> Claim:
    """`prompt.outside_fraction`: the share of prompt tokens that crossed the tap before they were used.

    Tokens that came in from a client or were released earlier; the rest was written behind the tap, and
    no recomputation says anything about answers to it.
    """
    known = total > 0
    return Claim(
        name="prompt.outside_fraction",
        value=outside / total if known else None,
        unit="share of prompt tokens",
        bound=Bound.LOWER,
        evidence=Evidence.MEASURED if known else Evidence.NOT_COVERED,
        assumptions=("The server was given the prompt that the tap recorded, and nothing besides.",),
        trusts=(Trust.TAP,),
        subject=context.log_id,
        window=context.window,
        method="sources of prompt tokens in records, v1",
        sample=f"{total} prompt tokens of all records",
        inputs=dict(context.inputs),
    )
