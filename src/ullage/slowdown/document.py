"""The answer as claims and as JSON."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from ullage.claims import Bound, Claim, Evidence, Interval, Trust, to_json
from ullage.slowdown.answer import Answer
from ullage.slowdown.central_claim import ClaimRow
from ullage.slowdown.constraints import Scenario
from ullage.slowdown.critical_batch import EXTRAPOLATION, cluster_table, critical_batch
from ullage.slowdown.evaluation import Evaluation, Quantiles
from ullage.slowdown.published import figures
from ullage.slowdown.sensitivity import Target
from ullage.slowdown.sources import describe
from ullage.slowdown.theft import TheftRow

METHOD = "ullage/slowdown/v1"
_CONFIDENCE = 0.9  # of the interval from the 5th to the 95th percentile
_THEFT_FIELDS = ("egress", "covert_fraction", "residual", "racks")  # what a leak's rate rests on
_ORDER = [Evidence.MEASURED.value, Evidence.PROVEN.value, Evidence.SIMULATED.value, "assumed",
          Evidence.NOT_COVERED.value]  # fmt: skip


def finite(value: float) -> float | None:
    """JSON has no infinity: null, beside `unbounded`."""
    return value if math.isfinite(value) else None


def quantiles_json(quantiles: Quantiles) -> dict[str, object]:
    """Quantiles for JSON: infinity is null with `unbounded`."""
    values = {name: finite(getattr(quantiles, name)) for name in ("p05", "p50", "p95")}
    return {**values, "unbounded": any(value is None for value in values.values())}


def weakest_evidence(scenario: Scenario) -> str:
    """The weakest tag among the constraints that the answer rests on."""
    tags = [note.evidence for note in scenario.notes.values()] or [Evidence.NOT_COVERED.value]
    return max(tags, key=_ORDER.index)


def trusted_by(scenario: Scenario, fields: Iterable[str] | None = None) -> tuple[Trust, ...]:
    """Whom the claims behind these constraints trust (all constraints without `fields`).

    A figure computed from claims holds only if everybody they trust is honest.
    """
    wanted = scenario.notes if fields is None else {f: n for f, n in scenario.notes.items() if f in fields}
    trusted = {trust for note in wanted.values() for trust in note.trusts}
    return tuple(trust for trust in Trust if trust in trusted)


def slowdown_claim(name: str, quantiles: Quantiles, evaluation: Evaluation, what: str) -> Claim:
    """A claim of that name from the quantiles; `what` joins its assumptions."""
    scenario = evaluation.scenario
    return Claim(
        name=name,
        value=finite(quantiles.p50),
        unbounded=not math.isfinite(quantiles.p50),
        interval=Interval(low=quantiles.p05, high=finite(quantiles.p95), confidence=_CONFIDENCE)
        if math.isfinite(quantiles.p05)
        else None,
        unit="factor",
        bound=Bound.ESTIMATE,
        evidence=Evidence.SIMULATED,
        assumptions=(
            "the listed strategies are the best there are: an unknown one can only lower the figure",
            f"a dark share of {scenario.constraints.dark_share:g}",
            what,
            *_behind(scenario, scenario.notes),
        ),
        trusts=trusted_by(scenario),
        subject=scenario.name,
        method=METHOD,
        sample=f"best strategy: {evaluation.best.label} ({evaluation.best_in:.0%} of draws)",
    )


def _behind(scenario: Scenario, fields: Collection[str]) -> tuple[str, ...]:
    """What these constraints rest on, and all that the scenario warns of."""
    tags = (
        f"{field}: {note.evidence} ({describe(note.source)})"
        for field, note in sorted(scenario.notes.items())
        if field in fields
    )
    doubt = sum(note.doubt for field, note in scenario.notes.items() if field in fields)
    together = f"the claims behind it hold together with at least {max(0.0, 1 - doubt):.6g}"
    return (*tags, *((together,) if doubt else ()), *scenario.warnings, *scenario.assumed)


def _seen(thief: TheftRow, scenario: Scenario) -> str:
    if scenario.constraints.enforced:
        return "the tap enforces: nothing of it leaves openly either"
    days = "never" if math.isinf(thief.open_days) else f"{thief.open_days:.3g} days"
    return f"unseen: a fleet that does not mind being seen in the end needs {days} (up to the cap)"


def claims_of(result: Answer) -> tuple[Claim, ...]:
    """Both slowdowns and `exfiltration.time` of the scenario shown in detail."""
    shown = result.detail
    thief = result.theft[0]
    return (
        slowdown_claim(
            "training.slowdown", shown.training, shown, "the smallest over the cluster types of the table"
        ),
        slowdown_claim(
            "training.throughput_slowdown", shown.throughput, shown, "work that no serial step limits"
        ),
        Claim(
            name="exfiltration.time",
            value=finite(thief.fleet_days),
            unbounded=not math.isfinite(thief.fleet_days),
            unit="days",
            bound=Bound.LOWER,
            evidence=Evidence.SIMULATED,
            assumptions=(
                f"weights of {thief.loot.size:.3g} bytes, compressed {thief.loot.compression:g} times",
                f"{shown.scenario.constraints.racks} racks leak together",
                _seen(thief, shown.scenario),
                *_behind(shown.scenario, _THEFT_FIELDS),
            ),
            trusts=trusted_by(shown.scenario, _THEFT_FIELDS),
            subject=shown.scenario.name,
            method=METHOD,
        ),
    )


def scenario_json(evaluation: Evaluation) -> dict[str, object]:
    """One evaluated scenario as `ullage slowdown --json` prints it."""
    constraints = evaluation.scenario.constraints
    return {
        "name": evaluation.scenario.name,
        "dark_share": constraints.dark_share,
        "slowdown": quantiles_json(evaluation.training),
        "throughput_slowdown": quantiles_json(evaluation.throughput),
        "pretraining_slowdown": quantiles_json(evaluation.pretraining),
        "best_strategy": evaluation.best.name,
        "best_in": evaluation.best_in,
        "binding_constraint": evaluation.binding,
        "reached": {f"{threshold:g}": share for threshold, share in evaluation.reached.items()},
        "evidence": weakest_evidence(evaluation.scenario),
        "warnings": list(evaluation.scenario.warnings),
        "assumed": list(evaluation.scenario.assumed),
    }


def _strategies(evaluation: Evaluation) -> list[dict[str, object]]:
    return [
        {
            "name": row.strategy.name,
            "number": row.strategy.number,
            "label": row.strategy.label,
            "story": row.strategy.story,
            "serves": "reinforcement learning" if row.strategy.reinforcement else "any training",
            "usable_share": quantiles_json(row.share),
            "throughput_slowdown": quantiles_json(row.throughput),
            "slowdown": quantiles_json(row.training),
            "binding_constraint": row.binding,
            "best_in": row.best_in,
        }
        for row in evaluation.strategies
    ]


def _critical_batch(dark_share: float) -> dict[str, object]:
    return {
        "tokens": 15e12,
        "critical_batch_tokens": critical_batch(),
        "extrapolated_times": list(EXTRAPOLATION),
        "dark_share": dark_share,
        "clusters": [
            {
                "name": row.cluster.name,
                "gpus": row.cluster.gpus,
                "layout": {
                    "tensor": row.cluster.tensor,
                    "pipeline": row.cluster.pipeline,
                    "expert": row.cluster.expert,
                },
                "ratio": row.ratio,
                "published_ratio": row.cluster.published_ratio,
                "days": row.days,
                "slowdown_fixed_step": finite(row.fixed_step),
                "slowdown_best_accumulation": finite(row.best_accumulation),
                "remark": row.cluster.remark,
            }
            for row in cluster_table(dark_share)
        ],
    }


def as_json(result: Answer) -> dict[str, object]:
    """What `ullage slowdown --json` prints; `docs/slowdown.md` names the fields."""
    shown = result.detail
    return {
        "claims": to_json(claims_of(result)),
        "scenarios": [scenario_json(evaluation) for evaluation in result.grid],
        "detail": scenario_json(shown),
        "constraints": {
            field: {"value": finite(float(value)), "evidence": _tag(shown.scenario, field)}
            for field, value in vars(shown.scenario.constraints).items()
        },
        "strategies": _strategies(shown),
        "critical_batch": _critical_batch(shown.scenario.constraints.dark_share),
        "central_claim": [_claim_row(row) for row in result.claim],
        "tornado": [
            {"label": bar.label, "kind": bar.kind, "from": bar.at_low, "to": bar.at_high,
             "slowdown": [finite(bar.low), finite(bar.high)]} for bar in result.tornado
        ],
        "targets": [_target(target) for target in result.targets],
        "theft": [
            {"what": row.loot.name, "bytes": row.loot.size, "compression": row.loot.compression,
             "rack_days": finite(row.rack_days), "fleet_days": finite(row.fleet_days),
             "open_days": finite(row.open_days)} for row in result.theft
        ],
        "assumptions": {
            name: {"low": entry.low, "mode": entry.mode, "high": entry.high, "unit": entry.unit,
                   "meaning": entry.meaning, "source": describe(entry.source)}
            for name, entry in result.ranges.items()
        },
        "published": [
            {"what": figure.what, "prose": figure.prose, "value": figure.value, "unit": figure.unit,
             "agrees": figure.agrees} for figure in figures()
        ],
        "samples": result.samples,
        "seed": result.seed,
    }  # fmt: skip


def _target(target: Target) -> dict[str, object]:
    return {
        "lever": target.lever.label,
        "unit": target.lever.unit,
        "slowdown": target.slowdown,
        "now": finite(target.now),
        "needed": target.value,
        "loosest": target.at_loosest,
    }


def _tag(scenario: Scenario, field: str) -> dict[str, str]:
    note = scenario.notes.get(field)
    return (
        {"tag": note.evidence, "source": describe(note.source)} if note else {"tag": "default", "source": ""}
    )


def _claim_row(row: ClaimRow) -> dict[str, object]:
    return {
        "bar": row.bar,
        "dark_share": row.evaluation.scenario.constraints.dark_share,
        "throughput_slowdown": quantiles_json(row.evaluation.throughput),
        "verdict": row.verdict,
        "decided_by": row.evaluation.best.name,
        "pretraining_slowdown": quantiles_json(row.evaluation.pretraining),
        "pretraining_verdict": row.pretraining_verdict,
        "closed_slowdown": quantiles_json(row.closed.throughput),
        "closed_verdict": row.closed_verdict,
        "closed_decided_by": row.closed.best.name,
        "slowdown": quantiles_json(row.evaluation.training),
        "training_verdict": row.training_verdict,
    }


def rows_by_scenario(grid: Iterable[Evaluation]) -> dict[str, list[Evaluation]]:
    """Evaluations by scenario, in order of appearance."""
    rows: dict[str, list[Evaluation]] = {}
    for evaluation in grid:
        rows.setdefault(evaluation.scenario.name, []).append(evaluation)
    return rows
