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

NEXT = replace(WINDOW, index=4, start_unix=WINDOW.start_unix + 60_000_000_000)


def test_round_trip(tmp_path: Path) -> None:
    windows = [
        WINDOW,
        replace(NEXT, steal=None, findings=(), inference=Inference(1.5, 1.75, 0.5, 2.0), held_up=0.01),
    ]
    for name, companion in (("account", None), ("beside", 0.875)):
        made = [replace(window, companion=companion) for window in windows]
        evidence.write(tmp_path / name, (), made)
        assert evidence.read(tmp_path / name) == made
    with pytest.raises(UsageError, match="not empty"):
        evidence.write(tmp_path / "account", (), windows)


@pytest.mark.parametrize(
    "changes",
    [
        {"seconds": 0.0}, {"seconds": math.nan}, {"seconds": None}, {"slots": 0}, {"credited": None},
        {"credited": -1}, {"unit_smallest": -1.0}, {"unit_smallest": math.nan}, {"unit_median": math.inf},
        {"steal": math.nan}, {"steal": -0.5}, {"inference_seconds": -60.0},
        {"companion": math.nan}, {"companion": -0.1},
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


def test_accounts_that_mix_or_know_no_companions_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "evidence").mkdir()
    rows = [evidence.row(WINDOW), evidence.row(replace(NEXT, companion=0.9))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "evidence" / "work.parquet")
    with pytest.raises(MalformedError, match="others without"):
        evidence.read(tmp_path)
    for older in (["companion"], ["held_up"], ["inference_shown", "held_up"]):
        old = pa.Table.from_pylist(rows).drop_columns(older)
        pq.write_table(old, tmp_path / "evidence" / "work.parquet")
        with pytest.raises(MalformedError, match="earlier version"):
            evidence.read(tmp_path)


@pytest.mark.parametrize(
    "windows",
    [
        [WINDOW, WINDOW],
        [NEXT, WINDOW],
        [WINDOW, replace(NEXT, index=WINDOW.index)],
        [WINDOW, replace(NEXT, start_unix=NEXT.start_unix - 1)],
        [WINDOW, replace(NEXT, start_unix=WINDOW.start_unix)],
    ],
)
def test_windows_doubled_or_out_of_order_are_refused(tmp_path: Path, windows: list[Window]) -> None:
    """A window that is there twice earns its units twice, and one that a tenant had can be covered so."""
    evidence.write(tmp_path / "account", (), windows)
    with pytest.raises(MalformedError, match="twice"):
        evidence.read(tmp_path / "account")


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedError):
        evidence.read(tmp_path)
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "work.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MalformedError):
        evidence.read(tmp_path)
