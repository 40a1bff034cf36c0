"""Claims become constraints; silence, distrust and foreign models are dealt with loudly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.slowdown.conditions import constraints, many_parameters
from ullage.claims import Bound, Claim, Evidence, Reading, Trust, digest_of
from ullage.errors import UsageError
from ullage.slowdown.answer import answer
from ullage.slowdown.best_response import respond
from ullage.slowdown.constraints import UNCONSTRAINED, Constraints, Note, Scenario, unconstrain
from ullage.slowdown.document import claims_of, trusted_by
from ullage.slowdown.from_claims import apply_claims
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.scenario_file import read_scenario
from ullage.slowdown.scenarios import ALL_BARS

BARS = Scenario("bars", ALL_BARS)


def claim(
    name: str,
    value: float | None,
    bound: Bound = Bound.UPPER,
    *,
    model: str = "",
    trusts: tuple[Trust, ...] = (),
) -> Claim:
    return Claim(
        name=name, value=value, unit="", bound=bound, method="test/v1", trusts=trusts,
        evidence=Evidence.PROVEN if value is not None else Evidence.NOT_COVERED,
        inputs={"model": model} if model else {},
    )  # fmt: skip


def test_every_claim_sets_its_constraint() -> None:
    result = apply_claims(
        BARS,
        [
            claim("wire.egress_cap", 5e4),
            claim("wire.ingress_cap", 7e4),
            claim("token.covert_fraction", 0.5),
            claim("token.covert_fraction_text", 0.002),
            claim("wire.unexplained_fraction", 0.003),
            claim("compute.accounted_fraction", 0.8, Bound.LOWER),
            claim("compute.accounted_flop", 0.4, Bound.LOWER),
            claim("memory.resident_fraction", 0.7, Bound.LOWER),
            claim("memory.erased_fraction", 0.99, Bound.LOWER),
            claim("memory.wipe_cycle", 13.0),
        ],
    )
    got = result.constraints
    assert (got.egress, got.ingress) == (5e4, 7e4)
    # Errors add; what is unexplained of both directions' bytes may all have left.
    assert got.covert_fraction == pytest.approx(0.002 + 0.003 * 12 / 5)
    assert (got.accounted_time, got.accounted_operations) == (0.8, 0.4)
    assert (got.resident_memory, got.erased, got.wipe_cycle) == (0.7, 0.99, 13.0)
    assert result.notes["accounted_time"].evidence == "proven-under-assumption"


@pytest.mark.parametrize(
    ("name", "field", "open_value"),
    [
        ("compute.accounted_fraction", "accounted_time", 0.0),
        ("compute.accounted_flop", "accounted_operations", 0.0),
        ("memory.resident_fraction", "resident_memory", 0.0),
        ("memory.erased_fraction", "erased", 0.0),
        ("token.covert_fraction_text", "covert_fraction", 1.0),
        ("memory.wipe_cycle", "wipe_cycle", 0.0),
    ],
)
def test_a_figure_that_errs_to_the_other_side_constrains_nothing(
    name: str, field: str, open_value: float
) -> None:
    needed = (
        Bound.LOWER
        if field in ("accounted_time", "accounted_operations", "resident_memory", "erased")
        else (Bound.UPPER)
    )
    assert getattr(apply_claims(BARS, [claim(name, 0.5, needed)]).constraints, field) == 0.5
    for bound in set(Bound) - {needed}:
        wrong = claim(name, 0.5, bound)
        for claims in ([wrong], [wrong, claim(name, 0.5, needed)], [claim(name, 0.5, needed), wrong]):
            result = apply_claims(BARS, claims)
            assert getattr(result.constraints, field) == open_value
            assert any("constrains nothing" in warning for warning in result.warnings)
            assert result.notes[field].evidence == "not-covered"


def test_of_several_claims_the_one_that_constrains_least_counts() -> None:
    names = (("compute.accounted_fraction", Bound.LOWER), ("memory.wipe_cycle", Bound.UPPER))
    for name, bound in names:
        for values in ((0.2, 0.7), (0.7, 0.2)):
            result = apply_claims(BARS, [claim(name, value, bound) for value in values])
            assert 0.2 in (result.constraints.accounted_time, result.constraints.wipe_cycle)
    result = apply_claims(BARS, [claim("wire.egress_cap", value) for value in (1e3, 2e3)])
    assert result.constraints.egress == 2e3


def test_what_enters_is_not_what_leaves() -> None:
    open_links = Scenario("open", Constraints())
    result = apply_claims(open_links, [claim("wire.egress_cap", 5e4)])
    assert (result.constraints.egress, result.constraints.ingress) == (5e4, Constraints().ingress)
    assert any("no claim on wire.ingress_cap" in warning for warning in result.warnings)


def test_who_was_quiet_while_metered_is_not_capped() -> None:
    quiet = apply_claims(BARS, [claim("wire.egress_rate", 0.0)])
    assert quiet.constraints.egress == BARS.constraints.egress
    assert any("not a cap" in line for line in quiet.warnings)
    capped = apply_claims(BARS, [claim("wire.egress_rate", 10.0), claim("wire.egress_cap", 5e4)])
    assert capped.constraints.egress == 5e4
    assert capped.notes["egress"].source.startswith("claim wire.egress_cap")


def test_who_was_seen_above_the_cap_has_no_such_cap() -> None:
    for given_claims in (
        [claim("wire.egress_rate", 3e5)],
        [claim("wire.egress_rate", 3e5), claim("wire.egress_cap", 1e5)],
    ):
        result = apply_claims(BARS, given_claims)
        assert result.constraints.egress == 3e5
        assert any("more than the scenario's cap" in line for line in result.warnings)


def test_a_cycle_that_took_long_once_need_not_take_long() -> None:
    """An upper bound of what a wipe takes never makes wipes cost the adversary more."""
    assert BARS.constraints.wipe_cycle == 20
    slow = apply_claims(BARS, [claim("memory.wipe_cycle", 200.0)])
    assert slow.constraints.wipe_cycle == 20
    assert any("takes no longer" in line for line in slow.assumed)
    assert apply_claims(BARS, [claim("memory.wipe_cycle", 5.0)]).constraints.wipe_cycle == 5


def test_the_worst_class_counts_where_something_is_known_of_it() -> None:
    mean, worst = (
        claim("token.covert_fraction_text", 0.1),
        claim("token.covert_fraction_text_worst_class", 0.3),
    )
    for order in ([mean, worst], [worst, mean]):
        assert apply_claims(BARS, order).constraints.covert_fraction == 0.3
    unknown = claim("token.covert_fraction_text_worst_class", None)
    assert apply_claims(BARS, [mean, unknown]).constraints.covert_fraction == 0.1


def test_the_chances_that_claims_are_wrong_add_up() -> None:
    sure = [
        claim("memory.resident_fraction", 0.9, Bound.LOWER).model_copy(update={"confidence": 0.99}),
        claim("wire.unexplained_fraction", 0.001).model_copy(update={"confidence": 0.98}),
        claim("token.covert_fraction", 0.001).model_copy(update={"confidence": 0.95}),
        claim("wire.egress_cap", 1e5),
    ]
    result = apply_claims(BARS, sure)
    assert sum(note.doubt for note in result.notes.values()) == pytest.approx(0.08)
    slowdown, _, theft = claims_of(answer(result, samples=50))
    assert any("at least 0.92" in line for line in slowdown.assumptions)
    assert any("at least 0.93" in line for line in theft.assumptions)


def test_what_the_scenario_assumes_stays_in_the_sum() -> None:
    noted = Scenario("noted", ALL_BARS, {"covert_fraction": Note("assumed", "a brochure")})
    result = apply_claims(noted, [claim("wire.unexplained_fraction", 1e-4)])
    assert result.notes["covert_fraction"].evidence == "assumed"
    assert "a brochure" in result.notes["covert_fraction"].source


def test_the_total_replaces_the_parts() -> None:
    result = apply_claims(
        BARS, [claim("token.covert_fraction", 0.5), claim("total.covert_bits_per_day", 8 * 86_400)]
    )
    assert result.constraints.covert_out == pytest.approx(1.0)


def test_a_total_of_other_claims_replaces_nothing() -> None:
    """A rack whose wire was explained does not speak for one whose was not."""
    clean, leaky = claim("wire.unexplained_fraction", 0.0), claim("wire.unexplained_fraction", 0.2)
    total = claim("total.covert_bits_per_day", 8e6).model_copy(
        update={"inputs": {clean.name: digest_of([clean])}}
    )
    rate = 1e6 / 86_400
    assert apply_claims(BARS, [clean, total]).constraints.covert_out == pytest.approx(rate)
    result = apply_claims(BARS, [total, clean, leaky])
    assert result.constraints.covert_fraction == pytest.approx(1e-4 + 0.2 * 2)
    assert any("summed without" in line for line in result.warnings)
    both = total.model_copy(update={"inputs": {leaky.name: digest_of([leaky])}})
    assert apply_claims(BARS, [clean, leaky, both]).constraints.covert_out == pytest.approx(rate)


def test_of_two_claims_the_weaker_counts() -> None:
    lower = [claim("memory.resident_fraction", value, Bound.LOWER) for value in (0.9, 0.6)]
    assert apply_claims(BARS, lower).constraints.resident_memory == 0.6
    upper = [claim("token.covert_fraction", value) for value in (0.1, 0.2)]
    assert apply_claims(BARS, upper).constraints.covert_fraction == 0.2


def test_what_is_not_covered_constrains_nothing_and_says_so() -> None:
    result = apply_claims(
        BARS, [claim("memory.resident_fraction", None, Bound.LOWER), claim("token.covert_fraction", None)]
    )
    assert result.constraints.resident_memory == 0
    assert result.constraints.covert_fraction == 1
    assert sum("not covered" in line for line in result.warnings) == 2
    assert result.notes["covert_fraction"].evidence == "not-covered"


def test_an_inspector_does_not_believe_the_prover() -> None:
    given = [claim("memory.resident_fraction", 0.95, Bound.LOWER, trusts=(Trust.PROVER_KERNEL,))]
    assert apply_claims(BARS, given).constraints.resident_memory == 0.95
    assert apply_claims(BARS, given, Reading.INSPECTOR).constraints.resident_memory == 0


def test_the_answer_trusts_whom_its_claims_trust() -> None:
    """Read as the operator, then handed to an inspector: what rests on the prover's word is lost there."""
    given = [
        claim("memory.resident_fraction", 0.95, Bound.LOWER, trusts=(Trust.PROVER_KERNEL, Trust.VERIFIER)),
        claim("wire.egress_cap", 1e5, trusts=(Trust.TAP,)),
    ]
    found = {one.name: one for one in claims_of(answer(apply_claims(BARS, given), samples=50))}
    slowdown, theft = found["training.slowdown"], found["exfiltration.time"]
    assert slowdown.trusts == (Trust.TAP, Trust.VERIFIER, Trust.PROVER_KERNEL)
    assert slowdown.value is not None
    assert slowdown.read_as(Reading.INSPECTOR).value is None
    assert found["training.throughput_slowdown"].read_as(Reading.INSPECTOR).value is None
    # A leak's rate does not rest on memory, so the inspector keeps it.
    assert theft.trusts == (Trust.TAP,)
    assert theft.read_as(Reading.INSPECTOR).value == theft.value
    # What the inspector refused at the door is no part of the answer, which then stands for him.
    assert trusted_by(apply_claims(BARS, given, Reading.INSPECTOR)) == (Trust.TAP,)


def test_a_sum_of_claims_has_the_weakest_evidence_and_all_trusts() -> None:
    tokens = claim("token.covert_fraction", 0.002, trusts=(Trust.VERIFIER,))
    wire = claim("wire.unexplained_fraction", 0.001, trusts=(Trust.PERIMETER,))
    both = apply_claims(BARS, [tokens, wire]).notes["covert_fraction"]
    assert both.trusts == (Trust.VERIFIER, Trust.PERIMETER)
    assert both.source.count("claim ") == 2
    blind = apply_claims(BARS, [claim("token.covert_fraction", None), wire])
    assert blind.constraints.covert_fraction == 1
    assert blind.notes["covert_fraction"].evidence == "not-covered"
    total = claim("total.covert_bits_per_day", 8e6, trusts=(Trust.TAP,)).model_copy(
        update={"inputs": {wire.name: digest_of([wire])}}
    )
    assert apply_claims(BARS, [tokens, wire, total]).notes["covert_fraction"].trusts == (Trust.TAP,)


def test_claims_of_another_model_are_refused() -> None:
    ours, theirs = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    two = [claim("token.covert_fraction", 0.1, model=ours), claim("token.mismatch_rate", 0.1, model=theirs)]
    with pytest.raises(UsageError, match=r"claim 2 \(token.mismatch_rate\)"):
        apply_claims(BARS, two)
    with pytest.raises(UsageError, match="the scenario"):
        apply_claims(BARS, two[:1], model=theirs)
    assert apply_claims(BARS, two[:1], model=ours).constraints.covert_fraction == 0.1


def test_claims_that_contradict_the_scenario_are_refused() -> None:
    with pytest.raises(UsageError, match=r"claim 2 \(memory.wipe_cycle: 301\).*not shorter"):
        apply_claims(BARS, [claim("token.covert_fraction", 0.1), claim("memory.wipe_cycle", 301.0)])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (claim("compute.accounted_fraction", -0.1, Bound.LOWER), "negative"),
        (claim("wire.egress_rate", -5.0), "negative"),
        (claim("memory.resident_fraction", 1.2, Bound.LOWER), "above 1"),
    ],
)
def test_claims_that_cannot_be_a_limit_are_refused(wrong: Claim, words: str) -> None:
    """Taken as they stand they would close what they do not close."""
    with pytest.raises(UsageError, match=words) as raised:
        apply_claims(BARS, [wrong])
    assert f"claim 1 ({wrong.name}" in str(raised.value)


def test_an_upper_bound_above_everything_is_everything() -> None:
    assert apply_claims(BARS, [claim("token.covert_fraction", 1.7)]).constraints.covert_fraction == 1


def test_the_total_of_a_fleet_is_not_taken_for_a_rack() -> None:
    rack = claim("total.covert_bits_per_day", 8 * 86_400)
    fleet = rack.model_copy(update={"value": 8e9 * 86_400, "subject": "fleet of 30 racks"})
    assert apply_claims(BARS, [fleet, rack]).constraints.covert_out == pytest.approx(1.0)


def test_wipes_of_unknown_rhythm_or_reach_are_said_loudly() -> None:
    never = apply_claims(Scenario("open", Constraints()), [claim("memory.erased_fraction", 1.0, Bound.LOWER)])
    assert not never.constraints.wiped
    assert any("never repeated" in line for line in never.warnings)
    assert any("erase all memory" in line for line in apply_claims(BARS, []).assumed)
    blind = apply_claims(BARS, [claim("memory.erased_fraction", None, Bound.LOWER)])
    assert blind.constraints.erased == 0
    assert any("memory.erased_fraction is not covered" in line for line in blind.warnings)


def test_a_claim_settles_what_the_scenario_complained_of(tmp_path: Path) -> None:
    path = tmp_path / "hall.yaml"
    path.write_text(
        "version: 1\ntokens: {covert_fraction: 0.1}\n"
        "memory: {wipe_period: 300, wipe_cycle: 20, resident: not-covered}\n", "utf-8"
    )  # fmt: skip
    scenario = read_scenario(path).scenario
    complaints = ("tokens.residual: not given", "memory.erased: not given", "resident_memory: not covered")
    for start in complaints:
        assert any(line.startswith(start) for line in (*scenario.warnings, *scenario.assumed)), start
    given = [
        claim("memory.erased_fraction", 0.99, Bound.LOWER),
        claim("memory.resident_fraction", 0.9, Bound.LOWER),
        claim("total.covert_bits_per_day", 8e6),
    ]
    after = apply_claims(scenario, given)
    left = (*after.warnings, *after.assumed)
    for start in complaints:
        assert not any(line.startswith(start) for line in left), start


def test_a_bound_on_tokens_alone_says_nothing_of_times_and_lengths() -> None:
    alone = Scenario("open", Constraints())
    tokens = apply_claims(alone, [claim("token.covert_fraction", 0.1)])
    assert any("lengths, times and order" in line for line in tokens.assumed)
    total = apply_claims(alone, [claim("total.covert_bits_per_day", 8e6)])
    assert not any("lengths, times and order" in line for line in total.assumed)


@settings(max_examples=60)
@given(constraints(), st.sampled_from(sorted(UNCONSTRAINED)), many_parameters(8))
def test_what_nothing_covers_helps_the_adversary_most(
    given_constraints: Constraints, field: str, values: Parameters
) -> None:
    """Unconstrained is at least as loose as any figure."""
    freed = unconstrain(given_constraints, field)
    before, after = respond(given_constraints, values), respond(freed, values)
    assert np.all(after.best_throughput <= before.best_throughput * (1 + 1e-9))
