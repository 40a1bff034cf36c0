"""The account's table, `evidence/work.parquet`: one row a window.

`docs/formats/work-evidence.md` has the columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ullage.claims import Claim, write_claims
from ullage.errors import FaultError, MalformedError, UsageError
from ullage.work.window import Inference, Window, Worth

_MAX_BYTES = 64 << 20
_PLAIN = (
    "seconds", "slots", "credited", "late", "openings", "bad", "missing", "steal", "companion", "held_up",
)  # fmt: skip
_COUNTS = ("window", "slots", "credited", "late", "openings", "bad", "missing")


def row(window: Window) -> dict[str, object]:
    """One window as a row; also what `--json` prints."""
    return {
        "window": window.index,
        "start": window.start_unix,
        "seconds": window.seconds,
        "slots": window.slots,
        "credited": window.credited,
        "late": window.late,
        "openings": window.openings,
        "bad": window.bad,
        "missing": window.missing,
        "unit_smallest": window.worth.smallest,
        "unit_median": window.worth.median,
        "unit_operations": window.worth.operations,
        "inference_seconds": window.inference.smallest,
        "inference_shown": window.inference.shown,
        "inference_inside": window.inference.inside,
        "inference_operations": window.inference.operations,
        "accounted": window.accounted(),
        "accounted_median": window.accounted(median=True),
        "steal": window.steal,
        "companion": window.companion,
        "held_up": window.held_up,
        "outcome": window.outcome.value,
        "findings": list(window.findings),
    }


def read(directory: Path) -> list[Window]:
    """The windows of an account, in their order. Raises MalformedError.

    A window that is there twice would earn twice, and the alarm takes them as they come.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = directory / "evidence" / "work.parquet"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise MalformedError(f"{path} is longer than {_MAX_BYTES} bytes, which no account is.")
        table = pq.read_table(path)
        if not {"companion", "held_up"} <= set(table.column_names):
            raise MalformedError(f"{path} is of an earlier version of this format; account again.")
        windows = [_window(values) for values in table.to_pylist()]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise MalformedError(f"{path} is not the table of an account.") from error
    if not all(map(_can_be, windows)):
        raise MalformedError(f"{path} has a window that cannot be: a size or a time is out of range.")
    if any(a.index >= b.index or a.end_unix > b.start_unix for a, b in pairwise(windows)):
        raise MalformedError(
            f"{path} has a window twice, or windows that overlap or are out of order, which no account has."
        )
    if len({window.companion is None for window in windows}) > 1:
        raise MalformedError(f"{path} has windows with a companion and others without, which no account has.")
    return windows


def _can_be(window: Window) -> bool:
    """Whether every number of a window is one that an account may have."""
    counts = (window.index, window.start_unix, window.slots, window.credited, window.late, window.openings,
              window.bad, window.missing, window.worth.operations)  # fmt: skip
    inference = window.inference
    times = [window.seconds, window.worth.smallest, window.worth.median, inference.smallest, inference.shown,
             inference.inside, inference.operations, window.held_up]  # fmt: skip
    times += [time for time in (window.steal, window.companion) if time is not None]
    return (
        all(isinstance(count, int) and count >= 0 for count in counts)
        and all(isinstance(time, float) and math.isfinite(time) and time >= 0 for time in times)
        and min(window.slots, window.seconds, window.worth.smallest, window.worth.median) > 0
        and (not window.openings or window.bad + window.missing <= window.openings)
        and all(isinstance(finding, str) for finding in window.findings)
    )


def _window(values: dict[str, Any]) -> Window:
    inference = Inference(
        values["inference_seconds"],
        values["inference_shown"],
        values["inference_inside"],
        values["inference_operations"],
    )
    return Window(
        index=values["window"],
        start_unix=values["start"],
        worth=Worth(values["unit_smallest"], values["unit_median"], values["unit_operations"]),
        inference=inference,
        findings=tuple(values["findings"]),
        **{name: values[name] for name in _PLAIN},
    )


def check_place(directory: Path) -> None:
    """Refuse a place that holds something. Raises UsageError."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is not empty; give --out a new folder, so that no evidence is lost.")


def write(directory: Path, claims: Sequence[Claim], windows: Sequence[Window]) -> None:
    """Write `claims.json` and the table. Raises UsageError, FaultError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_place(directory)
    schema = pa.schema(
        [
            *((name, pa.uint32()) for name in _COUNTS),
            ("start", pa.uint64()),
            ("unit_operations", pa.uint64()),
            *(
                (name, pa.float64())
                for name in (
                    "seconds", "unit_smallest", "unit_median", "inference_seconds", "inference_shown",
                    "inference_inside", "inference_operations", "accounted", "accounted_median", "steal",
                    "companion", "held_up",
                )
            ),
            ("outcome", pa.string()),
            ("findings", pa.list_(pa.string())),
        ]
    )  # fmt: skip
    try:
        (directory / "evidence").mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([row(window) for window in windows], schema)
        pq.write_table(table, directory / "evidence" / "work.parquet", compression="zstd")
        write_claims(directory / "claims.json", claims)
    except OSError as error:
        raise FaultError(f"The account cannot be written to {directory}: {error.strerror}.") from error
