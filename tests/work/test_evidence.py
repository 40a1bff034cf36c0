"""The account's folder: what was written comes back."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from ullage.errors import MalformedError, UsageError
from ullage.work import evidence
from ullage.work.window import Inference, Window, Worth

WINDOW = Window(
    3, 1 << 60, 60.0, 4, 1200, 2, 360, 1, 4, Worth(0.1, 0.2, 1 << 36), steal=0.01, findings=("a", "b")
)


def test_round_trip(tmp_path: Path) -> None:
    windows = [WINDOW, replace(WINDOW, steal=None, findings=(), inference=Inference(1.5, 1.5, 2.0))]
    evidence.write(tmp_path / "account", (), windows)
    assert evidence.read(tmp_path / "account") == windows
    with pytest.raises(UsageError, match="not empty"):
        evidence.write(tmp_path / "account", (), windows)


@pytest.mark.parametrize(
    "changes",
    [
        {"seconds": 0.0}, {"seconds": math.nan}, {"seconds": None}, {"slots": 0}, {"credited": None},
        {"credited": -1}, {"unit_smallest": -1.0}, {"unit_smallest": math.nan}, {"unit_median": math.inf},
        {"steal": math.nan}, {"steal": -0.5}, {"inference_seconds": -60.0},
        {"inference_operations": math.inf}, {"bad": 400}, {"start": "1970"}, {"findings": [1]},
    ],
)  # fmt: skip
def test_windows_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    """A NaN of steal is not more than 2 %, a negative time earns, and no slots divide by nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "evidence").mkdir()
    table = pa.Table.from_pylist([{**evidence.row(WINDOW), **changes}])
    pq.write_table(table, tmp_path / "evidence" / "work.parquet")
    with pytest.raises(MalformedError):
        evidence.read(tmp_path)


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedError):
        evidence.read(tmp_path)
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "work.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MalformedError):
        evidence.read(tmp_path)
