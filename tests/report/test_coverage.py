"""What a report says that a reader cannot learn."""

from __future__ import annotations

from tests.report.samples import claim
from ullage.claims import Claim, Evidence, Reading, Trust
from ullage.report.coverage import gaps
from ullage.report.documents import Document
from ullage.report.report_page import Sources

NAME = "compute.accounted_fraction"


def of(subject: str, *, spoken: bool = True, who: Trust = Trust.VERIFIER) -> Claim:
    made = claim(NAME, 0.97).model_copy(update={"subject": subject, "trusts": (who,)})
    return made if spoken else made.model_copy(update={"value": None, "evidence": Evidence.NOT_COVERED})


def reason(claims: list[Claim], reading: Reading = Reading.INSPECTOR) -> str | None:
    return next((gap.reason for gap in gaps(claims, reading) if gap.name == NAME), None)


def test_one_machine_that_is_covered_does_not_cover_another() -> None:
    assert reason([]) == "not measured"
    assert reason([of("a")]) is None
    assert reason([of("a"), of("a", spoken=False)]) is None  # two looks at one machine, one of which tells
    assert reason([of("a", spoken=False)]) == "looked at, and not covered"
    assert reason([of("a"), of("b", spoken=False)]) == "looked at, and not covered, for 1 of 2 subjects"


def test_a_claim_that_a_reader_may_not_rest_on_covers_nobody() -> None:
    declared = of("b", who=Trust.PROVER_INVENTORY)
    assert reason([of("a"), declared], Reading.OPERATOR) is None
    assert reason([of("a"), declared]) == "rests on prover-inventory, for 1 of 2 subjects"
    assert reason([declared]) == "rests on prover-inventory"


def test_a_claim_is_said_to_be_of_the_first_document_that_has_it() -> None:
    first, other = of("a"), of("b")
    documents = (Document("x/one.json", "", (first,)), Document("two.json", "", (first, other)))
    sources = Sources(documents)
    assert [sources.origin(one) for one in (first, other, of("c"))] == [
        "one.json", "two.json", "the log, checked just now",
    ]  # fmt: skip
