"""Base64Bench against scripted endpoints in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.monitor.scripted_endpoint import right_answer
from ullage.errors import UsageError
from ullage.monitor.base64_kinds import KINDS, sample
from ullage.monitor.base64_run import read_scores
from ullage.monitor.base64_score import DIRECTIONS, Item, items, question, score
from ullage.monitor.base64_tables import Share, document, plot, table

ROOT = Path(__file__).parents[2]
Start = Callable[[str], str]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a scripted endpoint; its URL."""
    processes: list[subprocess.Popen[str]] = []

    def begin(script: str) -> str:
        command = [sys.executable, "-m", "tests.monitor.scripted_endpoint", script]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline().split()[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def bench(url: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ullage", "bench", "base64", "--endpoint", url, "--each", "1"]
    return subprocess.run(
        [*command, "--out", str(out), "--json", *more],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_there_are_34_kinds_and_the_same_seed_gives_the_same_texts() -> None:
    assert len(KINDS) == 34
    assert all(sample(kind, 3, 7) == sample(kind, 3, 7) for kind in KINDS)
    assert sum(sample(kind, 3, 7) != sample(kind, 3, 8) for kind in KINDS) > 25
    assert len(items(5)) == 340


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(KINDS)), st.integers(0, 10**6), st.sampled_from(DIRECTIONS), st.integers(0, 99))
def test_the_right_answer_scores_one_and_an_empty_one_no_more(
    kind: str, number: int, direction: str, seed: int
) -> None:
    item = Item(kind, number, "encode" if direction == "encode" else "decode")
    assert score(item, seed, right_answer(question(item, seed))).similarity == 1.0
    assert score(item, seed, "").similarity == 0.0


def test_scores_by_hand() -> None:
    item = Item("hex_32", 0, "decode")
    text = sample("hex_32", 0, 1)
    assert score(item, 1, text[:-1] + "x").similarity == pytest.approx(1 - 1 / 32)
    assert score(item, 1, f"  {text}\n").similarity == 1.0
    assert score(item, 1, "I can't do that.").refused
    assert score(Item("hex_32", 0, "encode"), 1, "not base64!").similarity == 0.0
    assert Share(0, 0).interval == (0.0, 1.0)


def test_a_perfect_endpoint_is_perfect_and_a_finished_run_asks_nothing(start: Start, tmp_path: Path) -> None:
    url = start("perfect")
    found = bench(url, tmp_path / "scores")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["accuracy"]["both"] == {"1.0": 1.0, "0.95": 1.0, "0.9": 1.0}
    again = bench("http://127.0.0.1:9", tmp_path / "scores")
    assert again.returncode == 0
    assert json.loads(again.stdout)["questions"] == 68


def test_scores_of_two_models_are_not_mixed(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "scores"
    bench(start("perfect"), path)
    path.write_text("\n".join(path.read_text().splitlines()[:20]))
    named = bench("http://127.0.0.1:9", path, "--model-name", "gone")
    assert named.returncode == 2
    assert "scripted" in named.stderr
    path.write_text(path.read_text().replace('"scripted-perfect"', '"gone"'))
    assert bench(start("perfect"), path).returncode == 2


def test_a_torn_run_goes_on_where_it_was(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "scores"
    bench(start("perfect"), path, "--model-name", "scripted")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:30], lines[30][:25]]))
    assert len(read_scores(path, 1)) == 29
    found = bench(start("refusing"), path, "--model-name", "scripted")
    assert json.loads(found.stdout)["questions"] == 68
    assert len(read_scores(path, 1)) == 68
    assert bench(start("perfect"), path, "--seed", "2").returncode == 2


def test_noise_and_refusals_are_told_apart(start: Start, tmp_path: Path) -> None:
    noisy = json.loads(bench(start("noisy"), tmp_path / "noisy").stdout)
    assert noisy["refused"] == 0
    assert noisy["accuracy"]["decode"]["1.0"] < noisy["accuracy"]["decode"]["0.9"]
    refusing = json.loads(bench(start("refusing"), tmp_path / "refusing").stdout)
    assert refusing["refused"] > 10
    assert refusing["accuracy"]["both"]["0.9"] == pytest.approx(1 - refusing["refused"] / 68)


@pytest.mark.slow
def test_questions_without_an_answer_are_left_for_the_next_run(start: Start, tmp_path: Path) -> None:
    path, one = tmp_path / "scores", ("--model-name", "scripted")
    found = bench(start("failing"), path, *one)
    assert found.returncode == 3
    missing = json.loads(found.stdout)["failed"]
    assert missing + len(read_scores(path, 1)) == 68
    assert bench(start("odd"), path, *one).returncode == 3
    assert bench(start("perfect"), path, *one).returncode == 0


def test_an_endpoint_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    found = bench("http://127.0.0.1:9", tmp_path / "scores")
    assert found.returncode == 4
    assert found.stderr.startswith("ullage: ")
    assert "Traceback" not in found.stderr


def test_tables_and_plots(tmp_path: Path) -> None:
    scores = {item: score(item, 1, right_answer(question(item, 1))) for item in items(1)}
    assert "| **all** | 68 | 100 / 100 / 100 | 100 / 100 / 100 |" in table(scores)
    assert document(scores)["questions"] == 68
    plot(scores, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
    path = tmp_path / "other"
    path.write_text('{"version": 1, "seed": 5}\n')
    with pytest.raises(UsageError):
        read_scores(path, 1)
