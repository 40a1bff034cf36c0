"""The published tables are what the model computes now, row by row, and what the measured logs hold."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/results/slowdown.md"
RUNS = ROOT / "docs/results/training-under-caps.jsonl"


def computed() -> dict[str, list[str]]:
    spec = importlib.util.spec_from_file_location("slowdown_tables", ROOT / "benchmarks/slowdown_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tables: dict[str, list[str]] = module.tables()
    return tables


def test_every_row_on_the_page_is_what_the_model_gives() -> None:
    """2,000 draws at seed 0. Where this fails: `python benchmarks/slowdown_tables.py`, and see what moved."""
    page = PAGE.read_text("utf-8").splitlines()
    tables = computed()
    assert [len(lines) for lines in tables.values()] == [5, 19, 19, 4, 18]
    missing = [line for lines in tables.values() for line in lines if line not in page]
    assert not missing, "\n".join(missing)


def test_every_measured_run_is_in_the_table_and_within_a_quarter() -> None:
    """The exchange is predicted; the run's own compute is taken as it was."""
    runs = [json.loads(line) for line in RUNS.read_text("utf-8").splitlines()]
    page = PAGE.read_text("utf-8")
    kinds = {(run["strategy"], run["workers"], run["rate_mb_s"]) for run in runs}
    assert len(runs) == len(kinds) == 7 * 2 * 3
    for run in runs:
        start = f"| {run['strategy']} | {run['workers']} | {run['rate_mb_s']:g} | {run['steps']}"
        row = next((line for line in page.splitlines() if line.startswith(start)), "")
        assert f"| {run['seconds_measured']:.1f} s | {100 * run['error_own_compute']:+.0f}% " in row, start
        assert f"| {100 * run['error']:+.0f}% |" in row, start
    assert max(abs(run["error_own_compute"]) for run in runs) <= 0.25
    within = sum(abs(run["error"]) <= 0.25 for run in runs)
    assert re.search(rf"calibrated compute {within}\s+of {len(runs)} are", page)
