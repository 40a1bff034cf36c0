"""`ullage fleet`: a fleet under audit, simulated."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.cli.progress import Quiet, meter

if TYPE_CHECKING:
    from ullage.slowdown.fleet import Outcome, Plan
    from ullage.slowdown.sampled_audit import CostRow


def fleet(
    *,
    racks: Annotated[int, typer.Option(help="Racks in the fleet.")] = 30_000,
    days: Annotated[int, typer.Option(help="Days to simulate.")] = 30,
    cheating: Annotated[float, typer.Option(help="Share of racks that cheat.")] = 0.01,
    deviating: Annotated[
        float, typer.Option(help="Share of a cheating rack's messages that deviate.")
    ] = 0.01,
    messages: Annotated[int, typer.Option(help="Messages a rack and day.")] = 533_000,
    drawn: Annotated[int, typer.Option(help="Messages audited a rack and day.")] = 150,
    power: Annotated[float, typer.Option(help="Chance that an audited deviation is flagged.")] = 1.0,
    honest_flags: Annotated[float, typer.Option(help="Share of honest messages that are flagged.")] = 1e-4,
    alarm_at: Annotated[int, typer.Option(help="Flags in a day that raise an alarm.")] = 3,
    recompute_cost: Annotated[
        float, typer.Option(help="Compute to recompute a message over generating it.")
    ] = 1.0,
    wipes: Annotated[float, typer.Option(help="Wipes a rack and day.")] = 0.0,
    wipe_cycle: Annotated[float, typer.Option(help="Seconds out of service at each wipe.")] = 20.0,
    wipe_false_alarm: Annotated[float, typer.Option(help="Chance that an honest wipe is late.")] = 1e-6,
    wipe_detection: Annotated[float, typer.Option(help="Chance that a cheat's wipe is noticed.")] = 0.0,
    inspections: Annotated[int, typer.Option(help="Racks that inspectors visit in a day.")] = 100,
    inspection_days: Annotated[int, typer.Option(help="Days from visit to answer.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Quiet = False,
) -> int:
    """Simulate a sampled audit over a fleet: time to detection, false alarms, cost."""
    from ullage.slowdown.fleet import Plan, cost_table, simulate
    from ullage.slowdown.sampled_audit import Audit

    plan = Plan(
        racks=racks,
        days=days,
        cheating_share=cheating,
        deviating_share=deviating,
        audit=Audit(messages, drawn, power, honest_flags, alarm_at),
        recompute_cost=recompute_cost,
        wipes_a_day=wipes,
        wipe_cycle=wipe_cycle,
        wipe_false_alarm=wipe_false_alarm,
        wipe_detection=wipe_detection,
        inspections_a_day=inspections,
        inspection_days=inspection_days,
        seed=seed,
    )
    with meter(quiet=quiet) as progress:
        outcome = simulate(plan, lambda *step: progress("simulating days", *step))
        costs = cost_table(plan, progress=lambda *step: progress("looking for the cheapest audit", *step))
    text = json.dumps(_document(plan, outcome, costs), indent=1) if as_json else _text(plan, outcome, costs)
    sys.stdout.write(text + "\n")
    return 0


_SHARES = (0.5, 0.9, 0.99)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _document(plan: Plan, outcome: Outcome, costs: tuple[CostRow, ...]) -> dict[str, object]:
    from ullage.claims import Bound, Claim, Evidence, Interval, to_json
    from ullage.slowdown.fleet import served_share

    share = plan.audit.hardware_share(plan.recompute_cost)
    claims = (
        Claim(
            name="fleet.verifier_share", value=share, unit="share of compute", bound=Bound.ESTIMATE,
            interval=Interval(low=share, high=share, confidence=0.99), evidence=Evidence.SIMULATED,
            assumptions=("recomputing costs what --recompute-cost says",), method="ullage/fleet/v1",
        ),
        Claim(
            name="fleet.false_alarms", value=outcome.false_alarms_a_month, unit="racks a month",
            bound=Bound.ESTIMATE, evidence=Evidence.SIMULATED,
            assumptions=("honest flags are independent between messages",), method="ullage/fleet/v1",
        ),
    )  # fmt: skip
    return {
        "claims": to_json(claims),
        "noticed_by_day": {f"{part:g}": _finite(outcome.noticed_by(part)) for part in _SHARES},
        "confirmed_by_day": {f"{part:g}": _finite(outcome.confirmed_by(part)) for part in _SHARES},
        "noticed_share": outcome.noticed_share,
        "alarms": outcome.alarms,
        "inspections": outcome.inspections,
        "longest_queue": outcome.longest_queue,
        "waiting_at_the_end": outcome.waiting,
        "false_alarms_a_month": outcome.false_alarms_a_month,
        "verifier_share": share,
        "served_share": served_share(plan),
        "daily_alarm_chance": {
            "cheating": plan.audit.alarm(plan.deviating_messages),
            "honest": plan.audit.false_alarm(),
        },
        "cost": [
            {
                "deviating_share": row.deviating_share,
                "drawn": row.drawn,
                "alarm_at": row.alarm_at,
                "verifier_share": _finite(row.hardware_share),
                "false_alarms_a_month": _finite(row.false_alarms_a_month),
            }
            for row in costs
        ],
    }


def _day(value: float) -> str:
    return f"day {value:.0f}" if math.isfinite(value) else "never"


def _text(plan: Plan, outcome: Outcome, costs: tuple[CostRow, ...]) -> str:
    from ullage.slowdown.fleet import served_share

    audit = plan.audit
    noticed = ", ".join(f"{part:.0%} by {_day(outcome.noticed_by(part))}" for part in _SHARES)
    confirmed = ", ".join(f"{part:.0%} by {_day(outcome.confirmed_by(part))}" for part in _SHARES)
    lines = [
        f"{plan.racks:,} racks for {plan.days} days, {plan.cheats:,} of them cheating in "
        f"{plan.deviating_share:.3g} of their messages",
        f"audit: {audit.drawn:,} of {audit.messages:,} messages a rack and day; "
        f"alarm at {audit.alarm_at} flags (chance a day: cheating "
        f"{audit.alarm(plan.deviating_messages):.3g}, honest {audit.false_alarm():.3g})",
        f"noticed:   {noticed}",
        f"confirmed: {confirmed} ({plan.inspections_a_day} visits a day, "
        f"answer after {plan.inspection_days} days)",
        f"false alarms: {outcome.false_alarms_a_month:,.3g} a month; "
        f"{outcome.inspections:,} visits, longest queue {outcome.longest_queue:,}",
        f"verifier hardware: {audit.hardware_share(plan.recompute_cost):.3%} of the fleet; "
        f"serving capacity after wipes: {served_share(plan):.1%}",
        "",
        "What noticing 99 % of cheating racks within a week costs, at one false alarm a month or fewer:",
        f"  {'deviating messages':>18} {'audited a day':>14} {'alarm at':>9} {'verifier hardware':>18} "
        f"{'false alarms/month':>19}",
    ]
    for row in costs:
        if row.drawn is None:
            lines.append(f"  {row.deviating_share:>18.2%}   not to be had at this share of honest flags")
        else:
            lines.append(
                f"  {row.deviating_share:>18.2%} {row.drawn:>14,} {row.alarm_at:>9} "
                f"{row.hardware_share:>18.3%} {row.false_alarms_a_month:>19.2g}"
            )
    return "\n".join(lines)
