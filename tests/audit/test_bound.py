"""`ullage bound` on tables that pyarrow wrote by hand, on an audit's own evidence, and on broken files."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.audit.conftest import Setting, run_ullage
from ullage.audit.bounds.betting import upper_bound_at_end
from ullage.audit.bounds.codelength import token_codelength
from ullage.audit.bounds.universal_code import CELL_GAPS, either_code, gap_cells, gaps_code, matches_code
from ullage.audit.scores import file as scores_file
from ullage.audit.scores.bounds import Code, Window, bound_scores
from ullage.audit.scores.claims import score_claims
from ullage.audit.scores.file import read_scores
from ullage.claims import Bound, Claim, Evidence
from ullage.cli.bound import bound
from ullage.errors import MalformedError, UllageError, UndecidedError, UsageError

V = 4096
Columns = dict[str, Any]


def write(path: Path, columns: Columns, **metadata: str) -> Path:
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata or None), path)
    return path


def honest(messages: int = 40, tokens: int = 50, seed: int = 0) -> Columns:
    """Messages of a server with a little noise: columns of everything that the format knows."""
    generator = np.random.default_rng(seed)
    count = messages * tokens
    gap = generator.exponential(2.0, count)
    flips = generator.random(count) < 0.5 * np.exp(-gap / 0.02)
    reference = generator.integers(0, V, count)
    return {
        "record": np.repeat(np.arange(messages), tokens),
        "token": np.where(flips, (reference + 1) % V, reference),
        "reference": reference,
        "rank": flips.astype(np.int32),
        "margin": np.where(flips, gap, 0.0),
        "gap": gap,
        "admissible_count": np.where(gap < 0.1, 2, 1),
        "text_bytes": np.full(count, 4),
        "class": np.repeat(np.array(["chat", "completions"] * (messages // 2)), tokens),
    }


def chosen(columns: Columns, *names: str) -> Columns:
    return {name: columns[name] for name in ("record", *names)}


def figures(path: Path, **options: Any) -> Any:
    return bound_scores(read_scores(path), V, **options)


def test_a_whole_window_without_a_calibration(tmp_path: Path) -> None:
    columns = honest()
    path = write(tmp_path / "scores.parquet", columns, vocabulary_size=str(V))
    done = run_ullage("bound", path, "--json", expect=0)
    found = json.loads(done.stdout)
    flips = int((columns["rank"] == 1).sum())
    assert flips > 5
    counts = np.zeros((len(CELL_GAPS), 3), np.int64)
    np.add.at(counts, (gap_cells(columns["gap"]), columns["rank"]), 1)
    bits = either_code([gaps_code(counts, V), matches_code(2000, flips, 0, V, ranked=True)])
    assert found["bits"] == pytest.approx(bits)
    assert found["codes"] == ["gaps", "matches"]
    claims = {claim["name"]: Claim.model_validate(claim) for claim in found["claims"]}
    assert claims["token.covert_capacity"].value == pytest.approx(bits / 2000)
    assert claims["token.covert_fraction"].value == pytest.approx(bits / 2000 / 12)
    assert claims["token.covert_fraction_text"].value == pytest.approx(bits / 2000 / 32)
    for name in ("token.covert_capacity", "token.covert_fraction_worst_class"):
        assert claims[name].bound is Bound.UPPER
        assert claims[name].evidence is Evidence.PROVEN
        assert claims[name].inputs["scores"] == found["scores"]
    assert claims["token.mismatch_rate"].value == pytest.approx(flips / 2000)
    assert claims["token.path_capacity"].bound is Bound.ESTIMATE
    assert claims["token.path_capacity"].value == pytest.approx((columns["gap"] < 0.1).mean())
    assert "could carry covert data through the channels listed: the choice of token values" in done.stderr


def test_columns_decide_which_codes_there_are(tmp_path: Path) -> None:
    columns = honest()
    bits = {}
    for names, codes in (
        (("token", "reference"), (Code.MATCHES,)),
        (("margin",), (Code.MATCHES,)),
        (("rank",), (Code.MATCHES,)),
        (("rank", "gap"), (Code.GAPS, Code.MATCHES)),
    ):
        found = figures(write(tmp_path / "one", chosen(columns, *names)))
        assert found.codes == codes
        bits[names] = found.figures.window.bits
    assert bits["token", "reference"] == bits["margin",]
    assert bits["rank", "gap"] < bits["rank",] < bits["margin",]
    given = token_codelength(np.where(columns["rank"] == 0, 0.99, 0.01), V, 1e-4)
    path = write(tmp_path / "two", {**columns, "codelength": given})
    found = figures(path)
    assert found.codes == (Code.GIVEN,)
    assert found.figures.window.bits == pytest.approx(given.sum(), rel=1e-5)
    assert figures(path, code=Code.GAPS).codes == (Code.GAPS,)
    for code in Code:
        with pytest.raises(UsageError, match=f"The code '{code}' takes"):
            figures(write(tmp_path / "none", chosen(columns, "gap")), code=code)
    with pytest.raises(UsageError, match="says nothing about its tokens"):
        figures(write(tmp_path / "none", chosen(columns, "gap")))


def test_a_leak_costs_what_it_carries(tmp_path: Path) -> None:
    """Forty free choices among 4096 tokens carry 480 bits, and no code prices them below."""
    columns = honest()
    generator = np.random.default_rng(1)
    places = generator.choice(2000, 40, replace=False)
    columns["token"][places] = generator.integers(0, V, 40)
    columns["rank"] = np.where(columns["token"] == columns["reference"], 0, 1)
    columns["rank"][places] = generator.integers(9, V, 40)
    clean = figures(write(tmp_path / "clean", honest())).figures.window.bits
    leaking = figures(write(tmp_path / "leaking", columns)).figures.window.bits
    assert leaking - clean > 480


def test_a_sample_needs_a_code_of_its_own(tmp_path: Path) -> None:
    columns = honest()
    given = np.where(columns["rank"] == 0, 1.5e-4, 15.0)
    draws = np.repeat(np.arange(40) % 3 + 1, 50)
    path = write(tmp_path / "drawn", {**chosen(columns, "rank"), "codelength": given, "draws": draws})
    window = Window(10_000, 500_000)
    found = figures(path, window=window, confidence=0.99)
    shares = np.repeat(np.add.reduceat(given, np.arange(0, 2000, 50)) / (50 * 12 + 20), draws[::50])
    share = upper_bound_at_end(shares, 0.01)
    assert found.figures.window.bits == pytest.approx(share * (500_000 * 12 + 10_000 * 20), rel=1e-3)
    assert found.figures.draws == len(shares)
    assert "The mean over the audited messages is above 0.0001" in found.figures.advice
    more = figures(path, window=window, target=0.01).figures.advice
    assert more is not None
    assert "draws with these messages; the window has 10,000" in more
    claims = {claim.name: claim for claim in score_claims(read_scores(path), found, V, "sha256:" + "0" * 64)}
    assert claims["token.covert_fraction"].confidence == 0.99
    assert claims["token.covert_fraction_text"].evidence is Evidence.NOT_COVERED
    assert not any(name.endswith("_worst_class") for name in claims)
    with pytest.raises(UsageError, match="for a whole window"):
        figures(write(tmp_path / "no code", chosen(columns, "rank")), window=window)
    with pytest.raises(UsageError, match="more than the window"):
        figures(path, window=Window(10, 500_000))


def test_draws_in_any_order_are_bounded_at_the_end() -> None:
    """Sorting the draws helps a gambler who may stop when ahead; at the end it helps nobody."""
    values = np.array([0.0] * 60 + [0.3] * 10)
    shuffled = np.random.default_rng(0).permutation(values)
    assert upper_bound_at_end(values, 0.01) == pytest.approx(upper_bound_at_end(shuffled, 0.01), rel=1e-4)
    generator, truth = np.random.default_rng(2), 0.05
    missed = sum(
        upper_bound_at_end((generator.random(200) < truth).astype(float), 0.05) < truth for _ in range(300)
    )
    assert missed <= 15


def test_an_audits_own_evidence_is_a_table_of_scores(setting: Setting, tmp_path: Path) -> None:
    calibrated = setting.audit(setting.window, out=tmp_path / "bundle")
    path = tmp_path / "bundle" / "evidence" / "audit.parquet"
    table = read_scores(path)
    assert calibrated.covert is not None
    window = bound_scores(table, 288).figures.window
    assert window.tokens == calibrated.rate.tokens
    assert window.bits == pytest.approx(
        calibrated.covert.window.bits - calibrated.covert.ending_bits, rel=1e-6
    )
    assert bound_scores(table, 288, code=Code.MATCHES).figures.window.bits == pytest.approx(
        matches_code(window.tokens, calibrated.rate.mismatches, 0, 288, ranked=True)
    )


def test_torch_is_not_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "scores", honest())
    program = (
        "import sys\nfrom ullage.cli.bound import bound\n"
        f"bound(__import__('pathlib').Path({str(path)!r}), vocabulary={V}, quiet=True)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)


def test_what_a_table_may_look_like(tmp_path: Path) -> None:
    """Strings for records, dictionaries, small integers, float32, rows in any order, extra columns."""
    columns = honest()
    plain = figures(write(tmp_path / "plain", columns))
    order = np.random.default_rng(0).permutation(2000)
    other: Columns = {
        "record": pa.array([f"message {number}" for number in columns["record"][order]]).dictionary_encode(),
        "rank": pa.array(columns["rank"][order], pa.int8()),
        "gap": pa.array(columns["gap"][order], pa.float64()),
        "token": pa.array(columns["token"][order], pa.uint16()),
        "reference": pa.array(columns["reference"][order], pa.uint64()),
        "class": pa.array(columns["class"][order].tolist(), pa.large_string()),
        "extra": pa.array([{"nested": 1}] * 2000),
        "codelength": pa.nulls(2000, pa.float32()),
    }
    again = figures(write(tmp_path / "other", other))
    assert again.figures.window.bits == pytest.approx(plain.figures.window.bits)
    assert again.figures.worst_class == plain.figures.worst_class


BROKEN: dict[str, tuple[Columns, str]] = {
    "no record": ({"rank": [0]}, "no column 'record'"),
    "null record": ({"record": pa.array([1, None]), "rank": [0, 0]}, "'record' is null in 1 of 2"),
    "null rank": ({"record": [1, 1], "rank": pa.array([0, None])}, "'rank' is null in 1 of 2"),
    "negative rank": ({"record": [1, 1], "rank": [0, -1]}, "row 1 has 'rank' = -1"),
    "real rank": ({"record": [1], "rank": [0.5]}, "column 'rank' is double"),
    "text margin": ({"record": [1], "margin": ["0"]}, "column 'margin' is string"),
    "nan gap": ({"record": [1], "rank": [0], "gap": [math.nan]}, "row 0 has 'gap' = nan"),
    "infinite length": ({"record": [1], "codelength": [math.inf]}, "row 0 has 'codelength' = inf"),
    "negative length": ({"record": [1, 2], "codelength": [1.0, -1.0]}, "row 1 has 'codelength' = -1"),
    "empty set": ({"record": [1], "rank": [0], "admissible_count": [0]}, "'admissible_count' = 0"),
    "two classes": ({"record": [1, 1], "rank": [0, 0], "class": ["a", "b"]}, "row 1 has another class"),
    "no draws": ({"record": [1], "rank": [0], "draws": [0]}, "'draws' = 0"),
    "huge token": (
        {"record": [1], "token": pa.array([1 << 63], pa.uint64()), "reference": [0]}, "not in range",
    ),
    "long record": ({"record": ["x" * 129], "rank": [0]}, "more than 128 bytes"),
    "nested record": ({"record": [[1]], "rank": [0]}, "column 'record' is list"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_table_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    columns, sentence = BROKEN[name]
    with pytest.raises(MalformedError, match=sentence):
        figures(write(tmp_path / "broken", columns))


def test_bytes_that_are_no_table_are_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", honest()).read_bytes()
    for number, data in enumerate((b"", b"PAR1", b"\xff" * 400, whole[:-7], whole[: len(whole) // 2])):
        path = tmp_path / str(number)
        path.write_bytes(data)
        with pytest.raises(MalformedError, match="not a Parquet file of scores"):
            read_scores(path)
    generator = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), 6):
            damaged[place] ^= 1 << generator.integers(8)
        (tmp_path / "damaged").write_bytes(damaged)
        with contextlib.suppress(MalformedError, UsageError, UndecidedError):  # and nothing else
            figures(tmp_path / "damaged")


def test_limits_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "scores", honest())
    for limit, sentence in (
        ("MAX_FILE_BYTES", "a file of scores has at most"),
        ("MAX_READ_BYTES", "unpacks to"),
        ("MAX_ROWS", "rows; at most"),
        ("MAX_MESSAGES", "more than 1 messages"),
        ("MAX_COLUMNS", "more than 1 columns"),
        ("MAX_CLASSES", "more than 1 classes"),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(scores_file, limit, 1)
            with pytest.raises(MalformedError, match=sentence):
                read_scores(path)


def test_what_cannot_be_asked_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "scores", honest())
    (tmp_path / "text").write_text("record,rank\n")
    empty = write(tmp_path / "empty", {"record": pa.array([], pa.int64()), "rank": pa.array([], pa.int64())})
    cases: tuple[tuple[dict[str, Any], type[UllageError], str], ...] = (
        ({}, UsageError, "give --vocabulary"),
        ({"vocabulary": 1}, UsageError, "--vocabulary is"),
        ({"vocabulary": 9, "code": "x"}, UsageError, "--code is"),
        ({"vocabulary": 9, "drawn": True}, UsageError, "--drawn, --messages and --tokens go together"),
        ({"vocabulary": 9, "scores": tmp_path / "text"}, MalformedError, "not a Parquet file of scores"),
        ({"vocabulary": 9, "scores": tmp_path / "none"}, UsageError, "There is no file"),
        ({"vocabulary": 9, "scores": empty}, UndecidedError, "no tokens"),
    )
    for options, kind, sentence in cases:
        with pytest.raises(kind, match=sentence):
            bound(**{"scores": path, **options})
    done = run_ullage("bound", tmp_path / "text", "--vocabulary", "9", expect=1)
    assert len(done.stderr.strip().splitlines()) == 1
