"""Covert reinforcement learning, measured small: how many rollouts leave through a tap, and what a learner
makes of them.

    python benchmarks/covert_rollouts.py [--rounds 3] [--quick] [--json]

Real servers that hide, real taps (and an enforcer), the built-in model. Without verification the server codes
rollouts into every token (`payload`); under audit it stays below the verifier's alarm (`just-under-alarm`);
under enforcement the first of these meets the reference. Each row is a campaign: rounds of rollouts, passage,
best-of-8, fine-tuning.

Beside what got out stands the formula of strategy 6 (`ullage.slowdown.strategies.asymmetric_rl`), twice: fed
with the bits that the receiver really had, which checks its arithmetic, and with the verifier's own bound on
the same traffic, which is what a claim would give it. Rollouts a day are those of a rack that releases 6,173
tokens a second and makes as many tokens of rollouts beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ullage.model import instruction_set

instruction_set.pin()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from ullage.model.builtin import builtin_path  # noqa: E402
from ullage.model.reference import Reference  # noqa: E402
from ullage.redteam.enforced.stage import stage  # noqa: E402
from ullage.redteam.rollouts.campaign import FULL, QUICK, Form, Round, Size, campaign  # noqa: E402
from ullage.redteam.rollouts.learning import BEST_OF, Policy, Skill  # noqa: E402
from ullage.redteam.rollouts.parcels import score_bits, whole_bits  # noqa: E402
from ullage.redteam.rollouts.passage import AUDITED, ENFORCED, UNVERIFIED, Way  # noqa: E402
from ullage.slowdown.constraints import Constraints  # noqa: E402
from ullage.slowdown.parameters import Parameters, nominal  # noqa: E402
from ullage.slowdown.published import rack_tokens_a_second  # noqa: E402
from ullage.slowdown.strategies.asymmetric_rl import racks_that_get_out  # noqa: E402

DAY = 86_400
CAMPAIGNS = (
    (UNVERIFIED, Form.WHOLE),
    (AUDITED, Form.WHOLE),
    (AUDITED, Form.SCORES),
    (ENFORCED, Form.WHOLE),
)


@dataclass(frozen=True)
class Row:
    """A campaign, its rounds added up."""

    verification: str
    form: str
    rounds: int
    declared_tokens: int
    bits_a_token: float
    """That the receiver had."""
    bound_bits_a_token: float
    """The verifier's, on the same traffic; for enforcement 0, since token values are the reference's."""
    alarms: int
    """Rounds in which the verifier's alarm sounded."""
    made: int
    out: int
    wrong: int
    rollouts_out: int
    """Rollouts that a learner can use for what left: a whole one stands for the eight it won against."""
    share_out: float
    formula: float
    """Share that the strategy's formula gives for the bits that were really had."""
    formula_at_bound: float
    a_day: float
    """Rollouts a day and rack."""
    formula_a_day: float
    used: int
    skill: Skill


def row_of(way: Way, form: Form, size: Size, rounds: list[Round]) -> Row:
    tokens = sum(one.passage.tokens for one in rounds)
    text = sum(one.passage.text_bytes for one in rounds)
    arrived = sum(one.passage.arrived for one in rounds)
    bound = 0.0 if way.enforced else sum(one.passage.codelength_bits for one in rounds)
    made, out = sum(one.produced for one in rounds), sum(one.out for one in rounds)
    rollouts_out = out * BEST_OF if form is Form.WHOLE else out
    produced = rack_tokens_a_second() * DAY / size.length
    formula = predicted(form, size, made=made, tokens=tokens, text=text, bits=arrived)
    return Row(
        verification=way.name,
        form=form.value,
        rounds=len(rounds),
        declared_tokens=tokens,
        bits_a_token=arrived / tokens,
        bound_bits_a_token=bound / tokens,
        alarms=sum(one.passage.alarm for one in rounds),
        made=made,
        out=out,
        wrong=sum(one.wrong for one in rounds),
        rollouts_out=rollouts_out,
        share_out=rollouts_out / made,
        formula=formula,
        formula_at_bound=predicted(form, size, made=made, tokens=tokens, text=text, bits=bound),
        a_day=rollouts_out / made * produced,
        formula_a_day=formula * produced,
        used=sum(one.used for one in rounds),
        skill=rounds[-1].skill,
    )


def predicted(form: Form, size: Size, *, made: int, tokens: int, text: int, bits: float) -> float:
    """The strategy's share for our proportions: `made` rollouts beside `tokens` declared tokens."""
    idle = made * size.length / (made * size.length + tokens)
    parameters: Parameters = nominal()
    values = {
        # Rates of a machine that does the whole in one second: only their ratios matter.
        "rack_tokens": made * size.length + tokens,
        "curated_share": 1 / BEST_OF,
        "rollout_bits": whole_bits(size.length) / size.length,
        "rollout_tokens": size.length,
        "reward_bits": score_bits(),
    }
    parameters = Parameters(**{**vars(parameters), **{k: np.array([float(v)]) for k, v in values.items()}})
    constraints = Constraints(
        egress=text, covert_fraction=min(1.0, bits / 8 / text), accounted_time=1 - idle,
        accounted_operations=1 - idle,
    )  # fmt: skip
    whole, scores = racks_that_get_out(constraints, parameters)
    return min(1.0, float((whole if form is Form.WHOLE else scores)[0]) / idle)


async def measure(size: Size, rounds: int, only: str) -> tuple[Skill, list[Row]]:
    reference = Reference.load(builtin_path())
    start = Policy.of(reference).skill(0, size.length)
    rows = []
    with tempfile.TemporaryDirectory(prefix="ullage-rollouts-") as name:
        async with stage(Path(name) / "stage", builtin_path()) as ready:
            for way, form in CAMPAIGNS:
                if only not in f"{way.name}, {form.value}":
                    continue
                played = await campaign(ready, reference, way, form, size, rounds=rounds, progress=note)
                rows.append(row_of(way, form, size, played))
                note(json.dumps(asdict(rows[-1])))
    return start, rows


def note(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small rounds")
    parser.add_argument("--messages", type=int, help="declared answers a round; as many rollout tokens")
    parser.add_argument("--only", default="", help="campaigns whose name has this, such as 'audit, scores'")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if arguments.quick else FULL
    if arguments.messages:
        rollouts = arguments.messages * size.tokens // size.length // BEST_OF * BEST_OF
        size = replace(size, messages=arguments.messages, rollouts=rollouts)
    start, rows = asyncio.run(measure(size, arguments.rounds, arguments.only))
    if arguments.json:
        print(json.dumps({"size": asdict(size), "start": asdict(start), "rows": [asdict(r) for r in rows]}))
        return
    print(f"reward before: {start.mean:.4f} ± {start.error:.4f}")
    print(
        f"{'verification':<16} {'form':<7} {'bits/token':>10} {'bound':>8} {'alarms':>7} {'made':>5} "
        f"{'out':>5} {'share':>7} {'formula':>8} {'at bound':>9} {'a day':>9} {'reward':>8}"
    )
    for row in rows:
        print(
            f"{row.verification:<16} {row.form:<7} {row.bits_a_token:>10.3f} {row.bound_bits_a_token:>8.3f} "
            f"{row.alarms:>3} of {row.rounds} {row.made:>5} {row.rollouts_out:>5} {row.share_out:>7.1%} "
            f"{row.formula:>8.1%} {row.formula_at_bound:>9.1%} {row.a_day:>9.3g} {row.skill.mean:>8.4f}"
        )


if __name__ == "__main__":
    main()
