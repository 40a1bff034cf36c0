"""One scenario evaluated: quantiles of the slowdown, every strategy, what binds. And the whole grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ullage.slowdown.best_response import Response, binding_constraint, respond, run_slowdown
from ullage.slowdown.constraints import Scenario
from ullage.slowdown.parameters import RANGES, Parameters, nominal
from ullage.slowdown.ranges import Array, Range
from ullage.slowdown.registry import STRATEGIES, Strategy

DARK_SHARES = (0.0, 0.01, 0.05, 0.15)
THRESHOLDS = (2.0, 5.0, 10.0, 20.0)


@dataclass(frozen=True)
class Quantiles:
    """5th, 50th and 95th percentile over the draws; `inf` where nothing trains."""

    p05: float
    p50: float
    p95: float

    @classmethod
    def of(cls, values: Array) -> Quantiles:
        """Quantiles of draws `(N,)`; infinite ones count as they are."""
        # inverted_cdf picks draws and never averages, so an infinity does not spread
        low, middle, high = np.quantile(values, (0.05, 0.5, 0.95), method="inverted_cdf")
        return cls(float(low), float(middle), float(high))


@dataclass(frozen=True)
class StrategyResult:
    """One strategy over the draws; `best_in` is the share of draws in which no other is better."""

    strategy: Strategy
    throughput: Quantiles
    training: Quantiles
    share: Quantiles
    binding: str
    best_in: float  # share of draws in which it is the best


@dataclass(frozen=True)
class Evaluation:
    """A scenario at one dark share."""

    scenario: Scenario
    throughput: Quantiles
    training: Quantiles
    pretraining: Quantiles  # throughput, without what serves reinforcement learning only
    best: Strategy
    best_in: float
    binding: str
    reached: dict[float, float]  # threshold -> share of draws with a throughput slowdown of at least it
    reached_training: dict[float, float]
    strategies: tuple[StrategyResult, ...]


def reached(values: Array) -> dict[float, float]:
    """For each threshold the share of draws that reach it."""
    # a hair of tolerance: 1/d itself must count as having reached 1/d
    return {threshold: float(np.mean(values >= threshold * (1 - 1e-9))) for threshold in THRESHOLDS}


def evaluate(
    scenario: Scenario,
    parameters: Parameters,
    *,
    details: bool = True,
    ranges: Mapping[str, Range] = RANGES,
) -> Evaluation:
    """Quantiles over the draws; `details` adds every strategy with what binds it, at modes of `ranges`."""
    constraints = scenario.constraints
    response = respond(constraints, parameters)
    best, best_in = response.most_frequent_winner()
    typical = nominal(ranges)
    return Evaluation(
        scenario=scenario,
        throughput=Quantiles.of(response.best_throughput),
        training=Quantiles.of(response.best_training),
        pretraining=Quantiles.of(response.best_pretraining),
        best=best,
        best_in=best_in,
        binding=binding_constraint(best, constraints, typical),
        reached=reached(response.best_throughput),
        reached_training=reached(response.best_training),
        strategies=_strategy_results(scenario, response, parameters, typical) if details else (),
    )


def _strategy_results(
    scenario: Scenario, response: Response, parameters: Parameters, typical: Parameters
) -> tuple[StrategyResult, ...]:
    winners = response.winners
    dark, factor = scenario.constraints.dark_share, parameters.critical_batch_factor
    return tuple(
        StrategyResult(
            strategy,
            Quantiles.of(response.throughput[index]),
            Quantiles.of(run_slowdown(dark, strategy.outcome(scenario.constraints, parameters), factor)),
            Quantiles.of(response.shares[index]),
            binding_constraint(strategy, scenario.constraints, typical),
            float(np.mean(winners == index)),
        )
        for index, strategy in enumerate(STRATEGIES)
    )


def evaluate_grid(
    scenarios: Iterable[Scenario],
    parameters: Parameters,
    dark_shares: Iterable[float] = DARK_SHARES,
    ranges: Mapping[str, Range] = RANGES,
) -> tuple[Evaluation, ...]:
    """Every scenario at every dark share, in that order."""
    shares = tuple(dark_shares)
    return tuple(
        evaluate(scenario.with_dark_share(share), parameters, details=False, ranges=ranges)
        for scenario in scenarios
        for share in shares
    )
