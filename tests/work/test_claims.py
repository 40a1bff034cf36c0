"""What an account claims, and on whom and on what it says that it rests."""

from __future__ import annotations

from dataclasses import replace

from tests.work.test_account import FULL
from tests.work.test_calibration import MADE
from ullage.claims import Claim, Trust
from ullage.work.claims import make_claims
from ullage.work.window import Inference, Window


def claimed(*windows: Window) -> dict[str, Claim]:
    made = make_claims(
        windows, MADE, subject="a rack", inventory_declared=False, twin=True, inputs={"calibration": "x"}
    )
    return {claim.name: claim for claim in made}


def test_inference_rests_on_the_tap_whose_log_it_comes_from() -> None:
    plain = claimed(FULL)["compute.accounted_fraction"]
    assert Trust.TAP not in plain.trusts
    assert not any("recorded inference" in sentence for sentence in plain.assumptions)
    for inference in (Inference(1.0, 1.0, 1.0, 1.0), Inference(operations=1.0)):
        found = claimed(replace(FULL, inference=inference))
        for kind in ("fraction", "flop", "flop_nameplate"):
            name = f"compute.accounted_{kind}"
            assert Trust.TAP in found[name].trusts
            assert any("recorded inference" in sentence for sentence in found[name].assumptions)


def test_time_of_which_nothing_is_claimed_is_named() -> None:
    robbed = replace(FULL, index=1, credited=0, steal=0.4)
    alone, beside = claimed(FULL), claimed(FULL, robbed)
    name = "compute.accounted_fraction"
    assert beside[name].value == alone[name].value
    assert any("nothing is claimed of 60 s" in sentence for sentence in beside[name].assumptions)
    assert not any("nothing is claimed" in sentence for sentence in alone[name].assumptions)
    assert "1 of 2 windows" in beside[name].sample
    assert claimed(robbed)[name].value is None
