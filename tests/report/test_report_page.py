"""The report: what it shows, what it plainly does not, and that nothing in it can run or load."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.report.samples import (
    DIGEST,
    HOSTILE,
    claim,
    cycles,
    four_claims,
    red_team,
    wire_account,
    write_bundle,
    write_document,
)
from ullage.claims import Bound, Evidence, Reading, Trust, write_claims
from ullage.cli.report_sources import Request, gather
from ullage.errors import IntegrityError, MalformedError, UsageError
from ullage.log.notes.signed_note import NoteSigner
from ullage.report.adversaries import played
from ullage.report.claim_view import figure, groups
from ullage.report.documents import Document
from ullage.report.report_page import Report, make_report, render


def report(*paths: Path, **more: Any) -> Report:
    return make_report(gather(Request(paths, **more)), "now")


def words(made: Report) -> str:
    """What a person reads, for both readers."""
    text = re.sub(r"<(style|script)\b.*?</\1>", " ", render(made), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture
def everything(tmp_path: Path) -> Report:
    write_bundle(tmp_path / "audit", 20, 60)
    four = write_document(tmp_path / "four.json", four_claims())
    game = write_document(tmp_path / "game.json", [claim("token.covert_fraction", 0.9)], **red_team())
    wire = write_document(tmp_path / "wire.json", [], **wire_account())
    wipes = write_document(tmp_path / "wipes.json", [], **cycles())
    return report(tmp_path / "audit", four, game, wire, wipes)


def test_the_first_screen_has_declaration_verdict_fractions_and_slowdown(everything: Report) -> None:
    text = words(everything)
    assert everything.outcome == "pass"
    for shown in (
        "murmur3-gumbel/f64",
        "bfloat16",
        "≤ 0.0030 %",
        "≤ 9.0 %",
        "within the bar",
        "bar not reached",
    ):
        assert shown in text
    for reader in everything.readers:
        assert reader.slowdown.claim is not None
        assert reader.slowdown.claim.evidence is Evidence.SIMULATED


def test_an_inspector_comes_first_and_sees_less(everything: Report) -> None:
    inspector, operator = everything.readers
    assert (inspector.reading, operator.reading) == (Reading.INSPECTOR, Reading.OPERATOR)
    assert (inspector.within, inspector.missing) == (2, 1)
    assert (operator.within, operator.missing) == (3, 0)
    checked = [tag for tag in Elements(render(everything)).tags if "checked" in tag[1]]
    assert [tag[1]["id"] for tag in checked] == ["read-inspector"]


def test_what_is_missing_is_said_with_the_command_that_tells(tmp_path: Path) -> None:
    made = report(write_document(tmp_path / "one.json", [claim("log.coverage", 1.0, Bound.LOWER)]))
    text = words(made)
    assert text.count("no claim token.covert_fraction was given") == 2  # once for each reader
    for command in (
        "ullage work account",
        "ullage wire meter",
        "ullage memory hold",
        "ullage redteam tokens",
    ):
        assert command in text
    assert "No verdict" in text
    assert "neither a log nor a signed verdict was given" in text
    names = {gap.name for gap in made.readers[0].gaps}
    assert "token.mismatch_rate" in names
    assert "log.coverage" not in names


def test_claims_of_games_are_not_claims_about_the_machine(everything: Report) -> None:
    assert all(one.value != 0.9 for one in everything.sources.claims)
    assert [row.name for row in everything.adversaries if row.broke] == ["breaker"]
    views = [
        view for group in everything.groups for view in group.claims if view.claim.name.startswith("token.")
    ]
    assert {view.broken for view in views} == {"breaker (of 2 that played)"}


def test_an_adversary_of_whom_nothing_can_be_told_is_not_said_to_have_got_away() -> None:
    row = {"name": "tenant-20", "accounted_honest": 1.0, "caught": False, "must_be_caught": True}
    unknown = {**row, "undecided": True, "must_be_caught": False}
    told = played([Document("redteam.json", DIGEST, (), {"adversaries": [row, unknown]})])
    assert [(one.caught, one.broke) for one in told] == [("not caught", True), ("cannot tell", False)]


def test_every_claim_is_there_with_its_assumptions(everything: Report) -> None:
    text = words(everything)
    for one in everything.sources.claims:
        assert one.name in text
        for assumption in one.assumptions:
            assert assumption in text


def test_accounts_and_wipes_are_there(everything: Report) -> None:
    (account,) = everything.wires
    assert (account.total, account.reasons) == (1000, (("trailing bytes", 6),))
    assert sum(part.share for part in account.parts) == pytest.approx(1.0)
    assert [wipe.seconds for wipe in everything.wipes] == [5.0, 5.0, 5.0]


def test_the_curve_crosses_where_a_server_cheats_and_not_where_it_does_not(tmp_path: Path) -> None:
    write_bundle(tmp_path / "honest", 40, 60, rate=0.004)
    write_bundle(tmp_path / "cheat", 40, 60, rate=0.3)
    honest, cheat = report(tmp_path / "honest", tmp_path / "cheat").sources.audits
    assert honest.curve is not None
    assert cheat.curve is not None
    assert honest.curve.crossing is None
    assert cheat.curve.crossing is not None
    assert cheat.curve.crossing < 300
    for curve in (honest.curve, cheat.curve):
        assert all(0 <= curve.height(value) <= 100 for _, value in curve.points)


def test_the_calibrated_alarm_is_drawn_where_the_bundle_has_it(tmp_path: Path) -> None:
    rising = np.linspace(0.0, 12.0, 40 * 60)
    write_bundle(tmp_path / "audit", 40, 60, rate=0.004, log_e=rising)
    (audit,) = report(tmp_path / "audit").sources.audits
    assert audit.curve is not None
    assert audit.curve.calibrated
    assert audit.curve.supremum == 12.0
    assert audit.curve.crossing == 1 + int(np.argmax(rising >= np.log(1e4)))


def test_a_bundle_without_the_alarms_column_is_read(tmp_path: Path) -> None:
    write_bundle(tmp_path / "audit", 3, 40)
    path = tmp_path / "audit" / "evidence" / "audit.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["log_e"]), path)
    (audit,) = report(tmp_path / "audit").sources.audits
    assert audit.curve is not None
    assert not audit.curve.calibrated


def test_a_signature_is_checked_or_the_page_says_that_it_was_not(tmp_path: Path) -> None:
    signer = write_bundle(tmp_path / "audit", 3, 40)
    key = tmp_path / "verdict.pub"
    key.write_text(f"{signer.verifier}\n", "utf-8")
    assert "Signature not checked" in words(report(tmp_path / "audit"))
    checked = words(report(tmp_path / "audit", verdict_key=key))
    assert "Signature checked: ullage.invalid/verifier" in checked
    key.write_text(f"{NoteSigner('ullage.invalid/verifier', b'x' * 32).verifier}\n", "utf-8")
    with pytest.raises(IntegrityError):
        report(tmp_path / "audit", verdict_key=key)


def test_nothing_that_anybody_wrote_becomes_markup(tmp_path: Path) -> None:
    write_bundle(tmp_path / "audit", 3, 40, text=HOSTILE)
    texts: dict[str, Any] = dict.fromkeys(("sample", "subject", "method", "unit"), HOSTILE)
    trusts = (Trust.PROVER_KERNEL,)
    made = [claim("token.covert_fraction", 0.1, assumptions=(HOSTILE,), inputs=texts, trusts=trusts, **texts)]
    game = red_team()
    game["adversaries"][0] |= {"name": HOSTILE, "remark": HOSTILE, "mode": HOSTILE}
    wire = {**wire_account(), "unexplained_by_reason": {HOSTILE: 5}}
    paths = [write_document(tmp_path / "a.json", made), write_document(tmp_path / "b.json", [], **game),
             write_document(tmp_path / "c.json", [], **wire)]  # fmt: skip
    text = render(report(tmp_path / "audit", *paths))
    tags = Elements(text).tags
    assert not {tag for tag, _ in tags} & {"img", "iframe", "link", "object", "base"}
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert len(re.findall(r"<script>", text)) == 1


def test_it_loads_nothing_and_runs_one_script(everything: Report) -> None:
    text = render(everything)
    for tag, attributes in Elements(text).tags:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#"), tag
    assert "url(" not in text
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"claims": 3}', '{"claims": [{}]}', '{"claims": [NaN]}', "[" * 100_000, "\xff"],
)
def test_what_is_no_document_is_refused_in_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "claims.json"
    path.write_text(content, "latin-1")
    with pytest.raises(MalformedError, match=r"claims\.json"):
        report(path)


def test_rows_of_wrong_types_do_not_break_the_page(tmp_path: Path) -> None:
    odd = {"adversaries": [3, {"leaked_bits_per_token": "x", "name": 4, "tokens_to_detection": 3}],
           "channels": "no", "cheaters": [{"runs": None}], "bytes": {"total": "many"},
           "unexplained_by_reason": [1],
           "cycles": [{"phases": {"a": "b", "c": -1}}, {"phases": 3}, None]}  # fmt: skip
    made = report(write_document(tmp_path / "odd.json", [], **odd))
    assert "unexplained" in render(made)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "9" * 5000], ids=len)
def test_a_number_that_no_page_can_reckon_with_is_refused(tmp_path: Path, number: str) -> None:
    for place in ("bytes", "unexplained_by_reason", "capture", "cycles", "adversaries"):
        odd = {**wire_account(), **cycles(), **red_team()}
        odd[place] = [{"phases": {"stop": 0.125}}] if isinstance(odd[place], list) else {"total": 0.125}
        path = write_document(tmp_path / "odd.json", [], **odd)
        path.write_text(path.read_text().replace("0.125", number))
        with pytest.raises(MalformedError, match="a number too large to reckon with"):
            report(path)


@pytest.mark.parametrize("size", [1e308, -1e308, 10**299])
def test_the_largest_numbers_are_shown(tmp_path: Path, size: float) -> None:
    odd: dict[str, Any] = {
        "bytes": {"total": 1, "record": size, "unexplained": size},
        "unexplained_by_reason": {"much": size},
        "capture": {"lost_frames": size},
        "cycles": [{"phases": {"stop": size, "erase": size, "total": size}}],
        "adversaries": [{"leaked_bits_per_token": size, "bound_bits_per_token": 1e-300}],
    }
    assert "unexplained" in words(report(write_document(tmp_path / "odd.json", [], **odd)))
    odd["bytes"] = {"total": size, "unexplained": 1}
    assert "unexplained" in words(report(write_document(tmp_path / "odd.json", [], **odd)))


def test_a_bundle_of_another_kind_gives_its_claims(tmp_path: Path) -> None:
    folder = tmp_path / "account"
    (folder / "evidence").mkdir(parents=True)
    write_claims(folder / "claims.json", four_claims())
    made = report(folder)
    assert made.sources.audits == ()
    assert made.readers[1].within == 3


def test_a_model_that_is_not_the_declared_one_is_refused(tmp_path: Path) -> None:
    from ullage.model.builtin import builtin_path

    write_bundle(tmp_path / "audit", 3, 40)
    assert DIGEST[:16] in render(report(tmp_path / "audit"))
    with pytest.raises(UsageError, match="not the declared model"):
        report(tmp_path / "audit", model=builtin_path())


def test_two_models_have_no_common_slowdown(tmp_path: Path) -> None:
    one = claim("token.covert_fraction", 0.1, inputs={"model": DIGEST})
    other = claim("wire.egress_rate", 3.0, inputs={"model": "sha256:" + "cd" * 32})
    made = report(write_document(tmp_path / "two.json", [one, other]))
    assert made.readers[0].slowdown.claim is None
    assert "use the claims of one model" in made.readers[0].slowdown.reason


def test_figures_beside_the_main_ones_are_folded_where_they_are_many() -> None:
    main = [claim("token.covert_fraction", 0.1), claim("token.mismatch_rate", 0.01)]
    beside = [claim(f"token.figure_{number}", 0.1) for number in range(7)]
    (folded,) = groups([*main, *beside], ())
    assert [view.claim for view in folded.first] == main
    assert [view.claim for view in folded.further] == beside
    (open_,) = groups([*main, *beside[:6]], ())
    assert open_.further == ()
    assert open_.first == open_.claims


def test_claims_of_one_name_say_which_input_they_are_from(tmp_path: Path) -> None:
    write_document(
        tmp_path / "one.json", [claim("token.covert_fraction", 0.1), claim("wire.egress_rate", 3.0)]
    )
    write_document(tmp_path / "two.json", [claim("token.covert_fraction", 0.2)])
    made = make_report(gather(Request((tmp_path / "one.json", tmp_path / "two.json"))), "now")
    origins = {(view.claim.name, view.claim.value): view.origin for one in made.groups for view in one.claims}
    assert origins == {
        ("token.covert_fraction", 0.1): "one.json", ("token.covert_fraction", 0.2): "two.json",
        ("wire.egress_rate", 3.0): "",
    }  # fmt: skip


def test_a_claim_that_is_true_or_not_reads_so() -> None:
    whole = claim("log.integrity", 1.0).model_copy(update={"unit": "1 or 0"})
    assert figure(whole).startswith("yes")
    assert figure(whole.model_copy(update={"value": 0.0})).startswith("no")
