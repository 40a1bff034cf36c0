"""From evidence to pass, fail or cannot-tell, with every reason in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ullage.audit.verdict import Outcome
from ullage.probe.configurations import Configuration
from ullage.probe.evidence import Evidence
from ullage.probe.explanation import UNLISTED, Change, Explanation

_ENDS = {
    "budget": "The budget is spent.",
    "questions": "Every prompt was asked once; at temperature 0 asking again says nothing new. Give more "
    "prompts with --prompts.",
    "silence": "The provider stopped answering.",
    "decided": "",
}


def judge(
    evidence: Evidence,
    excluded: Mapping[str, bool],
    explanation: Explanation,
    change: Change | None,
    *,
    why: str,
    configurations: Sequence[Configuration],
) -> tuple[Outcome, tuple[str, ...]]:
    """Fail if E reached 1/alpha; pass if it did not and every listed deviation is excluded at alpha."""
    alpha = evidence.alpha
    if not evidence.tokens:
        return Outcome.CANNOT_TELL, (
            f"{_ENDS[why]} No token could be held against the model, and nothing proves nothing.".strip(),
        )
    if evidence.crossed_at:
        return Outcome.FAIL, (
            f"After {evidence.crossed_at} tokens the evidence against the declared configuration reached "
            f"{1 / alpha:g} to 1 (false alarms at most {alpha:g}); it stands at 10^"
            f"{evidence.highest / math.log(10):.1f}.",
            *_explained(explanation, change, configurations),
        )
    left = [name for name, gone in excluded.items() if not gone]
    if not left:
        return Outcome.PASS, (
            f"{evidence.tokens} tokens speak for the declared configuration: each of {len(excluded)} listed "
            f"deviations is excluded at {alpha:g}, and the evidence against the declared one stayed below "
            f"{1 / alpha:g} to 1.",
        )
    return Outcome.CANNOT_TELL, (
        f"{_ENDS[why]} {evidence.tokens} tokens show no deviation, and do not exclude {', '.join(left)}.",
    )


def _explained(
    explanation: Explanation, change: Change | None, configurations: Sequence[Configuration]
) -> list[str]:
    summaries = {one.name: one.summary for one in configurations}
    if change is not None:
        before, after = (summaries.get(name, name) for name in (change.before, change.after))
        return [
            f"The model changed midway: until answer {change.answer} the tokens are best explained by "
            f"'{change.before}' ({before}), from then on by '{change.after}' ({after})."
        ]
    shift = explanation.shift
    if explanation.best == UNLISTED:
        length = f", as after a prompt of {abs(shift)} tokens {'more' if shift > 0 else 'less'}"
        more = (
            f" They follow the seed{length if shift else ''}, so what differs are the logits: another "
            "template or instructions that were not tried (--system-prompt), or other weights."
        )
        said = "None of the configurations that were tried explains the tokens."
        return [said + (more if explanation.follows_seed else "")]
    if explanation.best == "declared":
        return [
            "No configuration that was tried explains the tokens better than the declared one: its noise is "
            "larger than was calibrated, or what deviates was not tried."
        ]
    return [
        f"The closest explanation is '{explanation.best}': {summaries[explanation.best]} "
        f"({100 * explanation.share[0]:.3g} % of the likelihood of all that were tried)."
    ]
