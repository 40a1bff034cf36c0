"""A probe's result as text and as JSON."""

from __future__ import annotations

import math
from typing import Any, Final

from ullage.claims import to_json
from ullage.probe.probe_claims import probe_claims
from ullage.probe.run import ProbeResult
from ullage.terminal import plain_line

_SHOWN: Final = 8


def document(result: ProbeResult) -> dict[str, Any]:
    """What `--json` prints (`docs/probe.md`)."""
    change = result.change
    return {
        "claims": to_json(probe_claims(result)),
        "verdict": result.outcome.value,
        "reasons": list(result.reasons),
        "findings": result.findings,
        "profile": result.profile,
        "tokens": result.evidence.tokens,
        "tokens_to_detection": result.evidence.crossed_at or None,
        "log_e": result.evidence.highest,
        "explanations": [
            {"name": name, "log_likelihood": value, "share": share}
            for name, value, share in zip(
                result.explanation.names,
                result.explanation.log_likelihood,
                result.explanation.share,
                strict=True,
            )
        ],
        "excluded": result.excluded,
        "change": None
        if change is None
        else {"answer": change.answer, "before": change.before, "after": change.after},
        "spent": {
            "requests": result.purse.requests,
            "prompt_tokens": result.purse.prompt_tokens,
            "output_tokens": result.purse.output_tokens,
            "money": result.purse.money,
        },
        "noise": result.noise.source,
        "prompts": [
            {
                "question": one.question,
                "prompt": one.prompt,
                "tokens": one.tokens,
                "mismatches": one.mismatches,
                "largest_margin": _finite(one.largest_margin),
                "log_e": one.log_e,
                "mean_clipped_margin": one.mean_clipped_margin,
            }
            for one in result.prompts
        ],
    }


def text(result: ProbeResult) -> str:
    """For a terminal."""
    lines = [f"verdict: {result.outcome.value}", *(f"  {reason}" for reason in result.reasons)]
    if result.findings:
        lines += ["", "noticed, which accuses nobody:"]
        lines += [f"  {kind}: {sentence}" for kind, sentence in result.findings.items()]
    lines += ["", "explanations (log-likelihood, best first):"]
    for name, value in list(zip(result.explanation.names, result.explanation.log_likelihood, strict=True))[
        :_SHOWN
    ]:
        gone = " (excluded)" if result.excluded.get(name) else ""
        lines.append(f"  {name:<18}{value:12.1f}{gone}")
    worst = sorted(result.prompts, key=lambda one: -one.mismatches)[:_SHOWN]
    if worst and worst[0].mismatches:
        lines += ["", "prompts with most mismatches:"]
        lines += [
            f"  {one.mismatches:4d} of {one.tokens:4d}  {plain_line(one.prompt, ' ')[:60]}"
            for one in worst
            if one.mismatches
        ]
    purse = result.purse
    money = f", {purse.money:.4f} in money" if purse.money else ""
    lines += [
        "",
        f"spent: {purse.requests} requests, {purse.prompt_tokens} + {purse.output_tokens} tokens{money}",
        f"sampler: {result.profile}; noise: {result.noise.source}",
    ]
    return "\n".join([*lines, "", *(claim.render() for claim in probe_claims(result))])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
