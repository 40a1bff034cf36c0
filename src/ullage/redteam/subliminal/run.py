"""The whole of `ullage redteam subliminal`: how much of what, in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ullage.model.builtin import builtin_path
from ullage.model.reference import Reference
from ullage.redteam.subliminal import transmission, verification
from ullage.redteam.subliminal.digits import read_digits
from ullage.redteam.subliminal.findings import Findings
from ullage.redteam.subliminal.part import Part
from ullage.redteam.subliminal.toy import QUICK_CONDITIONS, ToyPlan, run_toy
from ullage.redteam.tokens.calibration import calibrate_game
from ullage.redteam.tokens.game import Size
from ullage.work.kernels import one_thread

FIRST_CALIBRATION = 1 << 37


@dataclass(frozen=True)
class Plan:
    """How much of each."""

    toy: ToyPlan
    trait: transmission.Plan
    audit: verification.Plan


FULL = Plan(
    ToyPlan(seeds=6, teacher_steps=150, student_steps=700),
    transmission.Plan(repetitions=5, size=Size(128, 24), bounds=(0.05, 0.5), other_steps=80),
    verification.Plan(calibration=Size(192, 32), audited=64, streams=21, enforced=24),
)
QUICK = Plan(
    ToyPlan(seeds=5, teacher_steps=150, student_steps=300, conditions=QUICK_CONDITIONS),
    transmission.Plan(repetitions=2, size=Size(32, 16), bounds=(0.5,), other_steps=0),
    verification.Plan(calibration=Size(64, 32), audited=32, streams=21, enforced=4),
)


def run(part: Part, plan: Plan, progress: Callable[[str], None] = lambda text: None) -> Findings:
    """Run `part` of `plan`. Raises UsageError where scikit-learn, whose digits the toy learns, is missing."""
    digits = None if part is Part.TRAIT else read_digits()  # said at once
    with one_thread():
        toy = run_toy(digits, plan.toy, progress) if digits else None
        if part is Part.TOY:
            return Findings(toy)
        reference = Reference.load(builtin_path())
        progress("honest runs for a calibration")
        calibration = calibrate_game(reference, plan.audit.calibration, number=FIRST_CALIBRATION)
        found = transmission.run_transmission(reference, plan.trait, progress, calibration.noise)
        verified = verification.verify(reference, found.repetitions, plan.audit, calibration, progress)
        return Findings(toy, found, verified)
