"""Scenario files: what is read, and that every mistake is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import UsageError
from ullage.slowdown.constraints import UNCONSTRAINED
from ullage.slowdown.scenario_file import read_scenario

GOOD = """\
version: 1
name: a rack hall
model: sha256:00
fleet: {dark_share: 0.02, racks: 100, response_days: 3, diversion_a_year: 0.01}
network:
  links: cut
  egress: 100000
  ingress: 100000
tokens:
  covert_fraction: {value: 0.001, source: our audit, evidence: measured}
compute:
  accounted_time: 0.9
  accounted_operations: not-covered
memory: {resident: 0.9, wipe_period: 300, wipe_cycle: 20, erased: 0.999}
updates: {interval_days: 30, accomplice_share: 0.1}
assumptions:
  compression: [50, 100, 200]
  learner_share: 0.3
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(text, "utf-8")
    return path


def test_a_good_file(tmp_path: Path) -> None:
    read = read_scenario(write(tmp_path, GOOD))
    constraints = read.scenario.constraints
    assert (read.scenario.name, read.model, read.fixes_dark_share) == ("a rack hall", "sha256:00", True)
    assert (constraints.racks, constraints.dark_share, constraints.egress) == (100, 0.02, 1e5)
    assert (constraints.covert_fraction, constraints.accounted_operations) == (0.001, 0)
    assert constraints.update_interval == 30 * 86_400
    assert read.scenario.notes["covert_fraction"].evidence == "measured"
    assert read.scenario.notes["accounted_operations"].evidence == "not-covered"
    assert any("accounted_operations: not covered" in line for line in read.scenario.warnings)
    assert read.ranges["learner_share"].low == read.ranges["learner_share"].high == 0.3
    assert (read.ranges["compression"].low, read.ranges["compression"].high) == (50, 200)


def test_silence_is_loud(tmp_path: Path) -> None:
    read = read_scenario(write(tmp_path, "version: 1\nname: x\n"))
    assert not read.fixes_dark_share
    assert {line.split(":")[0] for line in read.scenario.warnings} == {
        "updates.interval_days", "updates.accomplice_share", "fleet.response_days",
    }  # fmt: skip


def test_what_is_not_covered_constrains_nothing(tmp_path: Path) -> None:
    """Whether it says so bare, or beside a figure that nothing stands behind."""
    text = """\
version: 1
fleet: {response_days: not-covered, diversion_a_year: not-covered}
network: {egress: not-covered}
tokens: {covert_fraction: {value: 0.0001, evidence: not-covered}, residual: not-covered}
compute: {accounted_time: {value: 0.95, evidence: not-covered, source: a brochure}}
memory: {wipe_period: 60, erased: not-covered, resident: {value: not-covered}}
updates: {interval_days: not-covered, accomplice_share: not-covered}
"""
    read = read_scenario(write(tmp_path, text)).scenario
    fields = {
        "response_days", "diversion", "egress", "covert_fraction", "residual", "accounted_time", "erased",
        "resident_memory", "update_interval", "accomplice_share",
    }  # fmt: skip
    for field in fields:
        assert getattr(read.constraints, field) == UNCONSTRAINED[field], field
        assert read.notes[field].evidence == "not-covered"
        assert any(line.startswith(f"{field}: not covered") for line in read.warnings), field
    assert read.constraints.covert_out == read.constraints.egress


def test_wipes_without_their_reach_are_loud(tmp_path: Path) -> None:
    read = read_scenario(write(tmp_path, "version: 1\nmemory: {wipe_period: 60}\n"))
    assert any("every wipe is taken to erase all memory" in line for line in read.scenario.assumed)


BAD = [
    ("version: 1\nfleet:\n  dark_share: not-covered\n", 3, "assumption that no check covers"),
    ("name: x\n", 1, "version"),
    ("version: 2\n", 1, "version 1"),
    ("version: 1\nfleet:\n  dark_share: -0.1\n", 3, "share"),
    ("version: 1\nfleet: {racks: 0}\n", 2, "above 0"),
    ("version: 1\nfleet: {memory_a_rack: inf}\n", 2, "finite"),
    ("version: 1\nmemory:\n  wipe_period: 60\n  wipe_cycle: 61\n", 4, "shorter"),
    ("version: 1\nmemory:\n  wipe_period: .nan\n", 3, "number"),
    ("version: 1\nmemory:\n  resident: much\n", 3, "number"),
    ("version: 1\nnetwork:\n  links: maybe\n", 3, "present or cut"),
    ("version: 1\ntokens: {covert: 0.1}\n", 2, "unknown name 'covert'"),
    ("version: 1\nfleets: {}\n", 2, "unknown section"),
    ("version: 1\nfleet: {racks: 1, racks: 2}\n", 2, "twice"),
    ("version: 1\nfleet: [1]\n", 2, "mapping"),
    ("version: 1\nassumptions:\n  luck: 1\n", 3, "no assumption"),
    ("version: 1\nassumptions:\n  compression: [3, 2, 1]\n", 3, "does not hold"),
    ("version: 1\nassumptions:\n  learner_share: 2\n", 3, "share"),
    ("version: 1\ntokens:\n  covert_fraction:\n    value: 0.1\n    evidence: rumour\n", 5, "one of"),
    ("version: 1\ntokens:\n  covert_fraction: {source: x}\n", 3, "no value"),
    ("version: 1\nname: &a x\nmodel: *a\n", 3, "aliases"),
    ("version: 1\nname: [\n", 3, "YAML"),
    ("", 1, "empty"),
]


@pytest.mark.parametrize(("text", "line", "words"), BAD, ids=[words for _, _, words in BAD])
def test_mistakes_are_refused_with_their_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        read_scenario(path)
    assert words in str(raised.value)
    assert f"{path}:{line}:" in str(raised.value)


def test_missing_large_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_scenario(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="larger"):
        read_scenario(write(tmp_path, "#" * 300_000))
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        read_scenario(path)
    with pytest.raises(UsageError):
        read_scenario(write(tmp_path, "version: 1\nname: " + "[" * 5_000))


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / "scenario.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        read = read_scenario(path)
    except UsageError:
        return
    assert read.scenario.name
