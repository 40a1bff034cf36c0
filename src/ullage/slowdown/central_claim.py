"""The source's central claim, tested: with cables pulled and the tap at 100 KB/s, is any one bar enough?

*Enough* means a slowdown of at least ten: the source calls training then infeasible, and less than an
order of magnitude is not that. "yes" if the 5th percentile reaches it, "no" if the 95th does not,
"cannot tell" between. The other thresholds are printed beside it, so another reading is one column away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ullage.slowdown.evaluation import Evaluation, Quantiles, evaluate
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.scenarios import MONTH, SINGLE_BARS, named

ENOUGH = 10.0


def verdict(slowdown: Quantiles, enough: float = ENOUGH) -> str:
    """ "yes", "no" or "cannot tell"."""
    if slowdown.p05 >= enough * (1 - 1e-9):
        return "yes"
    return "no" if slowdown.p95 < enough else "cannot tell"


@dataclass(frozen=True)
class ClaimRow:
    """One bar alone, under three readings: any training; pre-training only; and any training where
    updates of the declared model are quarterly and one customer's output is held to 1 % as well."""

    bar: str
    evaluation: Evaluation
    closed: Evaluation
    verdict: str
    pretraining_verdict: str
    closed_verdict: str
    training_verdict: str


def examine_claim(
    parameters: Parameters,
    dark_share: float = 0.05,
    bars: Iterable[str] = SINGLE_BARS,
    enough: float = ENOUGH,
) -> tuple[ClaimRow, ...]:
    """For each bar alone whether covert training is then slower by `enough`, at this dark share."""
    rows = []
    for bar in bars:
        scenario = named(bar).with_dark_share(dark_share)
        closed = replace(
            scenario,
            constraints=replace(scenario.constraints, update_interval=3 * MONTH, accomplice_share=0.01),
        )
        result, rest = evaluate(scenario, parameters), evaluate(closed, parameters, details=False)
        rows.append(
            ClaimRow(
                bar,
                result,
                rest,
                verdict(result.throughput, enough),
                verdict(result.pretraining, enough),
                verdict(rest.throughput, enough),
                verdict(result.training, enough),
            )
        )
    return tuple(rows)
