"""The whole answer as one value: what the table, the JSON and the page show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ullage.slowdown.central_claim import ClaimRow, examine_claim
from ullage.slowdown.constraints import Scenario
from ullage.slowdown.evaluation import DARK_SHARES, Evaluation, evaluate, evaluate_grid
from ullage.slowdown.parameters import RANGES, draw
from ullage.slowdown.ranges import Range
from ullage.slowdown.scenarios import ALL_BARS, BUILTIN, named
from ullage.slowdown.sensitivity import Bar, Target, targets, tornado
from ullage.slowdown.theft import TheftRow, theft_table

TYPICAL_DARK_SHARE = 0.05
_SENSITIVITY_SAMPLES = 200


@dataclass(frozen=True)
class Answer:
    """Grid, one scenario in detail, how it moves, the source's claim, theft."""

    grid: tuple[Evaluation, ...]
    detail: Evaluation
    tornado: tuple[Bar, ...]
    targets: tuple[Target, ...]
    claim: tuple[ClaimRow, ...]
    theft: tuple[TheftRow, ...]
    ranges: dict[str, Range]
    samples: int
    seed: int


def answer(
    scenario: Scenario | None,
    *,
    dark_shares: Sequence[float] = DARK_SHARES,
    ranges: dict[str, Range] | None = None,
    samples: int = 2_000,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Answer:
    """Evaluate one scenario, or all built-in ones (then in detail: all bars together)."""
    used = ranges or RANGES
    parameters = draw(samples, seed, used)
    chosen = BUILTIN if scenario is None else (scenario,)
    shown = named("all bars together") if scenario is None else scenario
    typical = dark_shares[0] if len(dark_shares) == 1 else TYPICAL_DARK_SHARE
    detailed = shown.with_dark_share(typical)
    few = draw(_SENSITIVITY_SAMPLES, seed, used)
    grid: list[Evaluation] = []
    for number, one in enumerate(chosen):
        progress("evaluating scenarios", number, len(chosen))
        grid += evaluate_grid((one,), parameters, dark_shares, used)
    progress("every strategy", 0, 0)
    detail = evaluate(detailed, parameters, ranges=used)
    progress("what moves it", 0, 0)
    bars = tornado(detailed.constraints, _SENSITIVITY_SAMPLES, seed, used)
    progress("what each would have to reach", 0, 0)
    reach = targets(detailed.constraints, few)
    progress("the claim that any one bar is enough", 0, 0)
    return Answer(
        grid=tuple(grid),
        detail=detail,
        tornado=bars,
        targets=reach,
        claim=examine_claim(parameters) if scenario is None else (),
        theft=theft_table(detailed.constraints if scenario else ALL_BARS),
        ranges=dict(used),
        samples=samples,
        seed=seed,
    )
