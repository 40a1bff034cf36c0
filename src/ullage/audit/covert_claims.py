"""Claims about covert capacity and the deviation alarm."""

from __future__ import annotations

import math

from ullage.audit.bounds import NOT_COVERED, Covert, CovertFigures
from ullage.audit.capacity import ClusteredRatio
from ullage.audit.claims import Context
from ullage.audit.watch import Alarm
from ullage.claims import Bound, Claim, Evidence, Interval, Trust

_TRUSTS = (Trust.TAP, Trust.VERIFIER)
_SOUND = (
    "The payload is independent of prompts, seeds, reference and calibration: prompts written inside the "
    "perimeter and seeds that the server picks break this.",
    "A row of the reference depends on the tokens before it only; on this stack rows were bitwise "
    "independent of later tokens and of the batch.",
    "The calibration is of the verifier's own runs, so that no payload chose it.",
    "A payload of k bits is decoded from a window of L <= k - s bits with probability at most 2^-s.",
    f"Not covered: {NOT_COVERED}.",
)


def covert_claims(figures: CovertFigures, context: Context, late: str | None) -> tuple[Claim, ...]:
    """`token.covert_capacity`, `token.covert_fraction`, `token.covert_fraction_text`, mean and worst class.

    `late` is an assumption more, where the calibration was signed after the window began.
    """
    extra = () if late is None else (late,)
    classes = f"worst of {figures.classes} classes: {figures.worst_class}"
    found = []
    for covert, suffix, which in (
        (figures.window, "", "all messages"),
        (figures.worst, "_worst_class", classes),
    ):
        for name, value, unit in (
            ("token.covert_capacity", covert.per_token, "bits/token"),
            ("token.covert_fraction", covert.fraction, "share of log2 V bits a token"),
            ("token.covert_fraction_text", covert.fraction_text, "share of the text's UTF-8 bits"),
        ):
            found.append(
                _upper(name + suffix, value, unit, figures, context, which=which, covert=covert, extra=extra)
            )
    return tuple(found)


def _upper(
    name: str,
    value: float,
    unit: str,
    figures: CovertFigures,
    context: Context,
    *,
    which: str,
    covert: Covert,
    extra: tuple[str, ...],
) -> Claim:
    known = not math.isnan(value)
    if figures.draws is None:
        method, how = "codelength of the whole window, exact sum, v1", "every message audited"
    else:
        method = "betting bound on the codelength, draws proportional to n log2 V + 20, v1"
        how = f"{figures.draws} draws with replacement"
    return Claim(
        name=name,
        value=value if known else None,
        unit=unit,
        bound=Bound.UPPER,
        confidence=figures.confidence if known else None,
        evidence=Evidence.PROVEN if known else Evidence.NOT_COVERED,
        assumptions=(*_SOUND, *extra),
        trusts=_TRUSTS,
        subject=context.model_digest,
        window=context.window,
        method=method,
        sample=f"{which}: {covert.tokens} tokens of {covert.messages} messages; {how}",
        inputs=dict(context.inputs),
    )


def not_covered(why: str, context: Context) -> tuple[Claim, ...]:
    """The same three figures where an audit says nothing about them, with the reason."""
    return tuple(
        Claim(
            name=name,
            value=None,
            unit=unit,
            bound=Bound.UPPER,
            evidence=Evidence.NOT_COVERED,
            assumptions=(why,),
            trusts=_TRUSTS,
            subject=context.model_digest,
            window=context.window,
            method="codelength, v1",
            inputs=dict(context.inputs),
        )
        for name, unit in (
            ("token.covert_capacity", "bits/token"),
            ("token.covert_fraction", "share of log2 V bits a token"),
            ("token.covert_fraction_text", "share of the text's UTF-8 bits"),
        )
    )


def alarm_claims(alarm: Alarm, context: Context) -> tuple[Claim, ...]:
    """`token.false_alarm_rate`, `token.tokens_to_detection`, `token.expected_leak_before_alarm`."""
    null = (
        f"Honest flips: at each token at most {alarm.kappa:g} times the noisiest calibrated session's "
        "probability at its gap, and the calibrated share outside; the sessions seen say nothing certain "
        "about the next."
    )
    distribution_free = (
        f"distribution-free test: {alarm.streams_limit}"
        if alarm.streams_above is None
        else f"distribution-free test: {alarm.streams_above} of {alarm.streams} messages above the limit "
        f"{alarm.streams_limit}"
    )
    sample = f"{alarm.tokens} audited tokens, ln sup E = {alarm.log_supremum:.4g}; {distribution_free}"
    common = {
        "trusts": _TRUSTS,
        "subject": context.model_digest,
        "window": context.window,
        "inputs": dict(context.inputs),
        "sample": sample,
        "method": "deviation alarm, three-outcome e-process, v1",
    }
    fired = alarm.fired
    finite = math.isfinite(alarm.expected_leak)
    return (
        Claim.model_validate(
            {
                **common,
                "name": "token.false_alarm_rate",
                "value": alarm.alpha,
                "unit": "probability a window",
                "bound": Bound.UPPER,
                "evidence": Evidence.PROVEN,
                "assumptions": (null,),
            }
        ),
        Claim.model_validate(
            {
                **common,
                "name": "token.tokens_to_detection",
                "value": float(alarm.tokens_to_detection) if fired else None,
                "unit": "audited tokens",
                "bound": Bound.UPPER,
                "evidence": Evidence.MEASURED if fired else Evidence.NOT_COVERED,
                "assumptions": (null,) if fired else (null, "The alarm did not fire in this window."),
            }
        ),
        Claim.model_validate(
            {
                **common,
                "name": "token.expected_leak_before_alarm",
                "value": alarm.expected_leak if finite else None,
                "unbounded": not finite,
                "unit": "bits",
                "bound": Bound.ESTIMATE,
                "evidence": Evidence.PROVEN,
                "assumptions": (
                    "For a server that fills whole messages with payload, each of which sets the alarm off "
                    "if it is audited; one that deviates less leaks less a message and is found later.",
                    f"A message is audited with probability {alarm.audited_share:.4g}, the window's mean.",
                    "Nothing is released while the audit lags: what is comes on top.",
                ),
            }
        ),
    )


def path_claim(log2_sizes: ClusteredRatio, capacity: float, bound: float, context: Context) -> Claim:
    """`token.path_capacity`: the figure C(b, K), an estimate.

    `capacity` is the figure at the mean of log2 N; the interval is that of the mean, moved along.
    """
    shift = capacity - log2_sizes.value
    return Claim(
        name="token.path_capacity",
        value=capacity,
        interval=Interval(
            low=log2_sizes.low + shift, high=log2_sizes.high + shift, confidence=log2_sizes.confidence
        ),
        unit="bits/token",
        bound=Bound.ESTIMATE,
        confidence=log2_sizes.confidence,
        evidence=Evidence.MEASURED,
        assumptions=(
            f"Contexts are as ambiguous as honest ones; the logits of both sides agree within {bound:g}.",
            "The rule tolerates the audit's limit on mismatches outside the sets, at any rank.",
            "An attacker steers towards ambiguous contexts: this is no upper bound.",
        ),
        trusts=_TRUSTS,
        subject=context.model_digest,
        window=context.window,
        method="C(b, K) with q = 1, interval over messages, v1",
        sample=f"{log2_sizes.clusters} messages",
        inputs=dict(context.inputs),
    )
