"""Claims about covert capacity and the deviation alarm."""

from __future__ import annotations

import math

from ullage.audit.bounds.window import NOT_COVERED, CovertFigures
from ullage.audit.claims import TRUSTS, Context
from ullage.audit.watch import Alarm
from ullage.claims import Bound, Claim, Evidence

_SOUND = (
    "The payload is independent of prompts, seeds, reference and calibration: prompts written inside the "
    "perimeter and seeds that the server picks break this.",
    "A row of the reference depends on the tokens before it only; on this stack rows were bitwise "
    "independent of later tokens and of the batch.",
    "The calibration is of the verifier's own runs, so that no payload chose it.",
    "A payload of k bits is decoded from a window of L <= k - s bits with probability at most 2^-s.",
    f"Not covered: {NOT_COVERED}.",
)


_UPPER = (
    ("token.covert_capacity", "bits/token"),
    ("token.covert_fraction", "share of log2 V bits a token"),
    ("token.covert_fraction_text", "share of the text's UTF-8 bits"),
)


def covert_claims(figures: CovertFigures, context: Context, late: str | None) -> tuple[Claim, ...]:
    """`token.covert_capacity`, `token.covert_fraction`, `token.covert_fraction_text`, mean and worst class.

    `late` is an assumption more, where the calibration was signed after the window began.
    """
    return upper_claims(figures, context, (*_SOUND, *(() if late is None else (late,))), "codelength")


def upper_claims(
    figures: CovertFigures, context: Context, assumptions: tuple[str, ...], length: str
) -> tuple[Claim, ...]:
    """Upper limits from `figures`, whose codelengths come from `length`, in words."""
    classes = f"worst of {figures.classes} classes: {figures.worst_class}"
    if figures.draws is None:
        method, how = f"{length} of the whole window, exact sum, v1", "every message audited"
    else:
        method = f"betting bound on {length}, draws proportional to n log2 V + 20, v1"
        how = f"{figures.draws} draws with replacement"
    found = []
    for covert, suffix, which in (
        (figures.window, "", "all messages"),
        (figures.worst, "_worst_class", classes),
    ):
        values = (covert.per_token, covert.fraction, covert.fraction_text)
        for (name, unit), value in zip(_UPPER, values, strict=True):
            known = not math.isnan(value)
            found.append(
                Claim(
                    name=name + suffix,
                    value=value if known else None,
                    unit=unit,
                    bound=Bound.UPPER,
                    confidence=figures.confidence if known else None,
                    evidence=Evidence.PROVEN if known else Evidence.NOT_COVERED,
                    assumptions=assumptions,
                    trusts=TRUSTS,
                    subject=context.model_digest,
                    window=context.window,
                    method=method,
                    sample=f"{which}: {covert.tokens} tokens of {covert.messages} messages; {how}",
                    inputs=dict(context.inputs),
                )
            )
    return tuple(found)


def not_covered(why: str, context: Context, method: str = "codelength, v1") -> tuple[Claim, ...]:
    """The same three figures where an audit says nothing about them, with the reason."""
    return tuple(
        Claim(
            name=name,
            value=None,
            unit=unit,
            bound=Bound.UPPER,
            evidence=Evidence.NOT_COVERED,
            assumptions=(why,),
            trusts=TRUSTS,
            subject=context.model_digest,
            window=context.window,
            method=method,
            inputs=dict(context.inputs),
        )
        for name, unit in _UPPER
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
        "trusts": TRUSTS,
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
