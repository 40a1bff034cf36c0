"""Python's collector of cycles, told what a process that writes many records is like."""

from __future__ import annotations

import gc
from typing import Final

_YOUNG: Final = 50_000  # objects made and not yet freed, before the collector looks at them


def calm_collector() -> None:
    """Collect cycles seldom, and never look again at what was loaded so far.

    Records in flight are many small objects that end by their reference counts. Looking for cycles among
    them every 700 objects, Python's default, took a tenth of the time of a record
    (`benchmarks/log_append.py`). Cycles are still found, later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
