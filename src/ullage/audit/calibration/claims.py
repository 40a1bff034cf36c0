"""What a calibration says of itself, on prompts that its fit did not see."""

from __future__ import annotations

from ullage.audit.bounds.capacity import traceless_bits_per_mismatch
from ullage.audit.calibration.file import Calibration
from ullage.claims import Bound, Claim, Evidence, Interval, Trust

_ASSUMPTIONS = (
    "The runs were honest: the verifier started the server and sent the prompts.",
    "Sessions (a server run and a prompt) count as independent; few runs show little of what differs between "
    "runs.",
)


def calibration_claims(calibration: Calibration) -> tuple[Claim, ...]:
    """`calibration.codelength`, `calibration.mismatch_rate` and `calibration.traceless_floor`."""
    held = calibration.held_out
    sample = (
        f"{held.tokens} held-out tokens of {held.messages} messages to {held.prompts} prompts, "
        f"{len(calibration.runs)} runs; {held.mismatches} mismatches, {held.outside} outside; fitted to "
        f"{calibration.fitted.tokens} tokens of {calibration.fitted.prompts} other prompts"
    )
    inputs = {"model": calibration.prover.model, "reference_stack": calibration.reference.stack}
    confidence = float(held.confidence)
    rate = held.mismatches / held.tokens
    floor = float(held.mismatch_low) * traceless_bits_per_mismatch(calibration.noise_model.curve)
    common = {
        "evidence": Evidence.MEASURED,
        "assumptions": _ASSUMPTIONS,
        "trusts": (Trust.VERIFIER,),
        "subject": calibration.prover.model,
        "sample": sample,
        "inputs": inputs,
    }

    def interval(low: float, high: float) -> Interval:
        return Interval(low=low, high=high, confidence=confidence)

    claims = [
        Claim.model_validate(
            {
                **common,
                "name": "calibration.codelength",
                "value": float(held.codelength),
                "interval": interval(float(held.codelength_low), float(held.codelength_high)),
                "unit": "bits/token",
                "bound": Bound.ESTIMATE,
                "confidence": confidence,
                "method": "codelength on held-out prompts, interval over sessions, v1",
            }
        ),
        Claim.model_validate(
            {
                **common,
                "name": "calibration.mismatch_rate",
                "value": rate,
                "interval": interval(float(held.mismatch_low), float(held.mismatch_high)),
                "unit": "share of tokens",
                "bound": Bound.ESTIMATE,
                "confidence": confidence,
                "method": "recomputation of held-out prompts, interval over sessions, v1",
            }
        ),
    ]
    if floor < float("inf"):
        claims.append(
            Claim.model_validate(
                {
                    **common,
                    "name": "calibration.traceless_floor",
                    "value": floor,
                    "unit": "bits/token",
                    "bound": Bound.LOWER,
                    "confidence": confidence,
                    "evidence": Evidence.PROVEN,
                    "assumptions": (
                        *_ASSUMPTIONS,
                        "Gaps have a constant density near 0, and errors are independent between tokens.",
                        "The fitted curve's tail is the true one.",
                    ),
                    "method": "C0 of the fitted curve at the mismatch rate's lower end, v1",
                }
            )
        )
    return tuple(claims)
