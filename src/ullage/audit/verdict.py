"""The rule that turns counts into `pass`, `fail` or `cannot-tell`, each with its reasons.

First version: the share of mismatches is held against a fixed limit for the precision that the server
declares. Fail if the rate is above the limit at 99 % confidence, pass if it is below at 99 %, otherwise
cannot-tell. Anything that is wrong with the log or with a record fails, and no tokens never pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ullage.audit.bounds.statistics import lower_bound, tokens_to_decide, upper_bound
from ullage.errors import ExitCode, UsageError

CONFIDENCE = 0.99
LIMITS = {"float32": 0.0002, "bfloat16": 0.02}
"""Largest tolerated share of mismatches by declared precision, until a calibration replaces them."""


class Outcome(StrEnum):
    """What an audit ends with."""

    PASS = "pass"  # noqa: S105 - the word of the verdict
    FAIL = "fail"
    CANNOT_TELL = "cannot-tell"

    @property
    def exit_code(self) -> ExitCode:
        """What a command that ends with this outcome returns."""
        return {
            Outcome.PASS: ExitCode.PASS,
            Outcome.FAIL: ExitCode.FAIL,
            Outcome.CANNOT_TELL: ExitCode.CANNOT_TELL,
        }[self]


@dataclass(frozen=True)
class Verdict:
    """An outcome and every reason for it, as sentences."""

    outcome: Outcome
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Divergence:
    """One delivered token that is not the reference's, for a reader who wants to look at it."""

    record: int
    position: int
    delivered: int
    reference: int
    margin: float
    """Raw logit units; infinite when the delivered token is outside the reference's filtered set."""

    def sentence(self) -> str:
        """The divergence in words."""
        if self.margin == float("inf"):
            distance = "which is outside the set that the filters leave"
        else:
            distance = f"with a margin of {self.margin:.4g} logits"
        return (
            f"The first divergent step is record {self.record}, output token {self.position}: "
            f"{self.delivered} was delivered where the reference has {self.reference}, {distance}."
        )


def limit_for(dtype: str) -> float:
    """The tolerated share of mismatches for a declared precision."""
    try:
        return LIMITS[dtype]
    except KeyError:
        known = ", ".join(LIMITS)
        raise UsageError(
            f"There is no limit for a server that declares {dtype!r}; choose one with --dtype ({known})."
        ) from None


def decide(
    mismatches: int,
    tokens: int,
    limit: float,
    findings: Sequence[str] = (),
    *,
    doubts: Sequence[str] = (),
    first: Divergence | None = None,
) -> Verdict:
    """The verdict over `tokens` audited tokens, `mismatches` of which are not the reference's.

    `findings` are sentences on what is wrong with the log or its records; any of them fails. `doubts` are
    sentences on what could not be judged; with any of them the verdict is not a pass. `first` is shown.
    """
    by_rate, said = _by_rate(mismatches, tokens, limit)
    if findings:
        outcome = Outcome.FAIL
    elif doubts and by_rate is Outcome.PASS:
        outcome = Outcome.CANNOT_TELL
    else:
        outcome = by_rate
    shown = () if first is None else (first.sentence(),)
    return Verdict(outcome, (*findings, *doubts, *said, *shown))


def decide_exactly(records: int, tokens: int, findings: Sequence[str], doubts: Sequence[str] = ()) -> Verdict:
    """The verdict over `records` derived transcripts of an enforced log: one that differs fails.

    `findings` and `doubts` as in `decide`.
    """
    if findings:
        return Verdict(Outcome.FAIL, (*findings, *doubts))
    if not tokens:
        return Verdict(
            Outcome.CANNOT_TELL, (*doubts, "No token was derived, and an empty log proves nothing.")
        )
    said = (
        f"Each of {records} audited transcripts ({tokens} tokens) is, bit for bit, the one that the "
        "reference derives from prompt, seed and parameters."
    )
    return Verdict(Outcome.CANNOT_TELL if doubts else Outcome.PASS, (*doubts, said))


def _by_rate(mismatches: int, tokens: int, limit: float) -> tuple[Outcome, list[str]]:
    if tokens == 0:
        return Outcome.CANNOT_TELL, ["No token was audited, and an empty log proves nothing."]
    low = lower_bound(mismatches, tokens, CONFIDENCE)
    high = upper_bound(mismatches, tokens, CONFIDENCE)
    share, at, edge = _share(mismatches, tokens), f"at {_percent(CONFIDENCE)} confidence", _percent(limit)
    if low > limit:
        return Outcome.FAIL, [f"{share}: {at} at least {_percent(low)}, above the limit of {edge}."]
    if high < limit:
        return Outcome.PASS, [f"{share}: {at} at most {_percent(high)}, below the limit of {edge}."]
    return Outcome.CANNOT_TELL, [
        f"{share}: between {_percent(low)} and {_percent(high)} (each end {at}), which contains the limit of "
        f"{edge}.",
        _missing(mismatches, tokens, limit),
    ]


def _share(mismatches: int, tokens: int) -> str:
    word = "token mismatches" if mismatches == 1 else "tokens mismatch"
    return f"{mismatches} of {tokens} audited {word}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _missing(mismatches: int, tokens: int, limit: float) -> str:
    needed = tokens_to_decide(mismatches, tokens, limit, CONFIDENCE)
    if needed is None:
        return "The rate lies on the limit: no number of further tokens would settle it."
    return f"If the rate stays as it is, about {max(needed - tokens, 1)} more tokens would settle it."
