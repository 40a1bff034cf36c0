"""The tables of `docs/results/slowdown.md` that the model computes, as Markdown.

    python benchmarks/slowdown_tables.py
    python benchmarks/slowdown_tables.py --time      what each part of the command costs instead

Every built-in scenario at 2,000 draws and seed 0, the same as `ullage slowdown`. A test holds the page
against it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator

from ullage.slowdown.central_claim import ClaimRow, examine_claim
from ullage.slowdown.critical_batch import cluster_table
from ullage.slowdown.document import rows_by_scenario
from ullage.slowdown.evaluation import Evaluation, Quantiles, evaluate_grid
from ullage.slowdown.fleet import Plan, simulate
from ullage.slowdown.parameters import Parameters, draw
from ullage.slowdown.published import figures
from ullage.slowdown.scenarios import ALL_BARS, BUILTIN
from ullage.slowdown.sensitivity import targets, tornado
from ullage.slowdown.slider_grid import slider_grid

SAMPLES, SEED = 2_000, 0


def factor(value: float) -> str:
    """Two digits; one where they would be 1.0."""
    return "1" if value < 1.05 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def span(quantiles: Quantiles) -> str:
    """Median [5th, 95th percentile]; one figure where all are the same."""
    low, middle, high = factor(quantiles.p05), factor(quantiles.p50), factor(quantiles.p95)
    return middle if low == middle == high else f"{middle} [{low}, {high}]"


def row(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def claim_lines(rows: Iterable[ClaimRow]) -> Iterator[str]:
    """The central claim: each bar alone under three readings, and the length of a whole run."""
    for entry in rows:
        shown = entry.evaluation
        yield row(
            entry.bar,
            f"**{entry.verdict}**, {span(shown.throughput)}",
            f"{shown.best.label} ({shown.best_in:.0%})",
            f"{entry.pretraining_verdict}, {span(shown.pretraining)}",
            f"{entry.closed_verdict}, {span(entry.closed.throughput)}",
            entry.closed.best.label,
            f"{entry.training_verdict}, {span(shown.training)}",
        )


def scenario_lines(grid: Iterable[Evaluation]) -> Iterator[str]:
    """Throughput slowdown by dark share, and the best strategy at 5 %."""
    for name, entries in rows_by_scenario(grid).items():
        typical = next(entry for entry in entries if entry.scenario.constraints.dark_share == 0.05)
        spans = [span(entry.throughput) for entry in entries]
        best = f"{typical.best.label} ({typical.best_in:.0%}); {typical.binding}"
        yield row(name, *spans, best)


def training_lines(grid: Iterable[Evaluation]) -> Iterator[str]:
    """The same for a run of 15 T tokens, smallest over cluster types."""
    for name, entries in rows_by_scenario(grid).items():
        yield row(name, *(span(entry.training) for entry in entries))


def cluster_lines() -> Iterator[str]:
    """Clusters beside their critical batch, with 5 % dark and nothing else."""
    for entry in cluster_table(0.05):
        slow = f"{entry.fixed_step:.2g}", f"{entry.best_accumulation:.2g}"
        kind = entry.cluster
        yield row(kind.name, f"{entry.ratio:.2g}", f"~{kind.published_ratio:g}", f"{entry.days:.2g}", *slow)


def published_lines() -> Iterator[str]:
    """The source's figures: prose, arithmetic, and whether they agree."""
    for figure in figures():
        value = f"{figure.value:,.0f}" if figure.value >= 1_000 else f"{figure.value:.3g}"
        yield row(figure.what, figure.prose, f"{value} {figure.unit}", "yes" if figure.agrees else "**no**")


def tables(parameters: Parameters | None = None) -> dict[str, list[str]]:
    """Every table, by its heading on the page."""
    drawn = draw(SAMPLES, SEED) if parameters is None else parameters
    grid = evaluate_grid(BUILTIN, drawn)
    return {
        "any one bar": list(claim_lines(examine_claim(drawn))),
        "scenarios": list(scenario_lines(grid)),
        "training": list(training_lines(grid)),
        "critical batch": list(cluster_lines()),
        "prose and arithmetic": list(published_lines()),
    }


def timed() -> None:
    """Processor seconds of each part, one after the other."""
    drawn, few = draw(SAMPLES, SEED), draw(200, SEED)
    parts: dict[str, Callable[[], object]] = {
        "grid: 19 scenarios, 4 dark shares": lambda: evaluate_grid(BUILTIN, drawn),
        "any one bar": lambda: examine_claim(drawn),
        "tornado": lambda: tornado(ALL_BARS),
        "targets": lambda: targets(ALL_BARS, few),
        "1,920 answers of the page's sliders": slider_grid,
        "fleet: 30,000 racks, 30 days": lambda: simulate(Plan()),
    }
    for name, part in parts.items():
        wall, processor = time.perf_counter(), time.process_time()
        part()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(f"{name:<40} {processor:>6.2f} s of processor time {wall:>7.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--time", action="store_true", help="what each part costs")
    if parser.parse_args().time:
        timed()
        return
    for heading, lines in tables().items():
        print(f"\n{heading}\n")
        print("\n".join(lines))


if __name__ == "__main__":
    main()
