"""The answer for a terminal: plain lines."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ullage.slowdown.answer import Answer
from ullage.slowdown.critical_batch import EXTRAPOLATION, cluster_table
from ullage.slowdown.document import rows_by_scenario, weakest_evidence
from ullage.slowdown.evaluation import THRESHOLDS, Evaluation, Quantiles
from ullage.slowdown.sensitivity import Target

_BARS_SHOWN = 12


def factor(value: float) -> str:
    """A slowdown in three digits; "never" where nothing trains."""
    if not math.isfinite(value):
        return "never"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def span(quantiles: Quantiles) -> str:
    """The median with its interval, as factors."""
    return f"{factor(quantiles.p50)} [{factor(quantiles.p05)}, {factor(quantiles.p95)}]"


def days(value: float) -> str:
    """A time in days in words."""
    if not math.isfinite(value):
        return "never"
    return (
        f"{value:,.0f} days"
        if value >= 10
        else f"{value:.2g} days"
        if value >= 0.1
        else f"{value * 86_400:.2g} s"
    )


def lines(result: Answer) -> list[str]:
    """Every table of the answer."""
    shown = result.detail
    parts = [
        [
            "How much slower is the best covert training? Median [5th, 95th percentile] of "
            f"{result.samples:,} draws over the sourced ranges.",
            "Throughput: work without serial steps. Training: a 15 T-token run, smallest over cluster types.",
        ],
        _grid(result.grid),
        _claim(result),
        [f"In detail: {shown.scenario.name}, dark share {shown.scenario.constraints.dark_share:.3g} "
         f"(weakest evidence: {weakest_evidence(shown.scenario)})"],
        _strategies(shown),
        _tornado(result),
        _targets(result.targets),
        _clusters(shown.scenario.constraints.dark_share),
        _theft(result),
        ["An unknown strategy can only lower these figures. Sources and ranges: --json, or --html FILE."],
    ]  # fmt: skip
    loud = [f"UNCONSTRAINED: {warning}" for warning in shown.scenario.warnings]
    loud += [f"ASSUMED: {line}" for line in shown.scenario.assumed]
    if loud:
        parts.insert(0, loud)
    return [line for part in parts if part for line in (*part, "")][:-1]


def _grid(grid: Iterable[Evaluation]) -> list[str]:
    out = [f"{'scenario':<47} {'dark':>5}  {'throughput':<22} {'training':<20} best strategy; what binds it"]
    for name, rows in rows_by_scenario(grid).items():
        for index, row in enumerate(rows):
            share = row.scenario.constraints.dark_share
            out.append(
                f"{name if index == 0 else '':<47} {share:>5.0%}  {span(row.throughput):<22} "
                f"{span(row.training):<20} {row.best.label} ({row.best_in:.0%}); {row.binding}"
            )
    return out


def _claim(result: Answer) -> list[str]:
    if not result.claim:
        return []
    out = [
        "“Any one bar is enough” (cables pulled, tap at 100 KB/s, dark 5 %; enough: ten times slower)",
        f"{'bar alone':<35} {'any training':<36} {'pre-training only':<34} "
        "if updates and customers are closed too",
    ]
    for row in result.claim:
        whole = f"{row.verdict}: {span(row.evaluation.throughput)}"
        pre = f"{row.pretraining_verdict}: {span(row.evaluation.pretraining)}"
        closed = f"{row.closed_verdict}: {span(row.closed.throughput)} ({row.closed.best.name})"
        out.append(f"{row.bar:<35} {whole:<36} {pre:<34} {closed}")
        out.append(
            f"{'':<35} decided by: {row.evaluation.best.label} (in {row.evaluation.best_in:.0%} of draws)"
        )
    return out


def _strategies(evaluation: Evaluation) -> list[str]:
    out = [f"{'strategy':<42} {'usable share u':<24} {'throughput':<22} {'best in':>7}  binding constraint"]
    for row in evaluation.strategies:
        share = f"{row.share.p50:.2g} [{row.share.p05:.2g}, {row.share.p95:.2g}]"
        label = f"{row.strategy.number}. {row.strategy.label}"
        out.append(f"{label:<42} {share:<24} {span(row.throughput):<22} {row.best_in:>7.0%}  {row.binding}")
    return out


def _tornado(result: Answer) -> list[str]:
    out = ["How it moves (throughput slowdown, one thing changed at a time):"]
    out += [
        f"  {bar.label:<55} {bar.at_low:>14} → {bar.at_high:<16} {factor(bar.low):>6} → {factor(bar.high)}"
        for bar in result.tornado[:_BARS_SHOWN]
    ]
    still = sum(bar.swing < 1.005 for bar in result.tornado)
    return [*out, f"  {still} of {len(result.tornado)} rows do not move it at all."]


def _targets(rows: tuple[Target, ...]) -> list[str]:
    out = ["What each lever alone would have to reach (– : not by this lever alone)"]
    out.append(f"  {'lever':<32} {'now':>10} " + "".join(f"{f'{t:g} times':>12}" for t in THRESHOLDS))
    by_lever: dict[str, list[Target]] = {}
    for row in rows:
        by_lever.setdefault(row.lever.label, []).append(row)
    for label, entries in by_lever.items():
        cells = "".join(f"{needed(entry):>12}" for entry in entries)
        out.append(f"  {label:<32} {entries[0].now:>10.3g} {cells}  {entries[0].lever.unit}")
    return out


def needed(target: Target) -> str:
    """The setting in two digits, "any" where the loosest already does, "–" where none does."""
    if target.value is None:
        return "–"
    return "any" if target.at_loosest else f"{target.value:.2g}"


def _clusters(dark_share: float) -> list[str]:
    low, high = EXTRAPOLATION
    out = [
        f"Critical batch: 118 M tokens at 15 T tokens; the fit is extrapolated {low} to {high} times. "
        f"Slowdown with the dark share ({dark_share:.3g}) alone:",
        f"  {'cluster':<34} {'B/B_crit':>9} {'published':>10} {'days':>6} {'fixed step':>11} "
        f"{'best accumulation':>18}",
    ]
    return out + [
        f"  {row.cluster.name:<34} {row.ratio:>9.2g} {row.cluster.published_ratio:>10g} {row.days:>6.3g} "
        f"{factor(row.fixed_step):>11} {factor(row.best_accumulation):>18}"
        for row in cluster_table(dark_share)
    ]


def _theft(result: Answer) -> list[str]:
    out = [f"Theft at this covert rate: {'':<20} {'one rack':>14} {'the fleet':>14} {'openly':>14}"]
    return out + [
        f"  {row.loot.name:<44} {days(row.rack_days):>14} {days(row.fleet_days):>14} "
        f"{days(row.open_days):>14}"
        for row in result.theft
    ]
