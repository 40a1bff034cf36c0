"""The second try itself: only after a disturbance, and only one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFTEST = """
import itertools
import tests.again
from tests.again import pytest_runtest_protocol
from ullage.work.steal import Ticks

looks = itertools.count()
tests.again.read = lambda: (lambda n: Ticks(100 * n, int({stolen} * 100 * n)))(next(looks))
tests.again._PATIENCE = 0.0
"""
FAILS = """
from pathlib import Path

import pytest

@pytest.fixture(scope="module")
def shared():
    yield 1

@pytest.fixture
def own(tmp_path):
    yield tmp_path

def test_before(shared):
    pass

def test_that_fails_at_first(shared, own):
    assert shared == 1 and not list(own.iterdir())
    (own / "file").touch()
    runs = Path(__file__).with_name("runs")
    done = len(runs.read_text()) if runs.exists() else 0
    runs.write_text("." * (done + 1))
    assert done >= {failures}
"""


PROPERTY = """
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

@settings(max_examples=1, database=None)
@given(st.none())
def test_that_fails_once(nothing):
    runs = Path(__file__).with_name("runs")
    assert runs.exists() or not runs.write_text(".")
"""


def pytest_in(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    return subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize(
    ("stolen", "failures", "code", "runs"),
    [(0.5, 1, 0, 2), (0.05, 1, 1, 1), (0.5, 2, 1, 2), (0.5, 0, 0, 1)],
)
def test_a_disturbed_test_is_run_once_more(
    tmp_path: Path, stolen: float, failures: int, code: int, runs: int
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.format(stolen=stolen))
    (tmp_path / "test_it.py").write_text(FAILS.format(failures=failures))
    (tmp_path / "test_next.py").write_text("def test_after():\n    pass\n")
    found = pytest_in(tmp_path)
    assert found.returncode == code, found.stdout
    assert len((tmp_path / "runs").read_text()) == runs
    assert ("run again" in found.stdout) == (runs == 2)  # nobody is left to believe that it passed at once


def test_a_counterexample_stays_one(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.format(stolen=0.5))
    (tmp_path / "test_it.py").write_text(PROPERTY)
    found = pytest_in(tmp_path)
    assert found.returncode == 1, found.stdout
    assert "run again" not in found.stdout
