"""What the operator of a tap is told: lines on standard error, which may lead nowhere by now."""

from __future__ import annotations

import contextlib
import sys


def tell_operator(sentence: str) -> None:
    """A line on standard error, where the operator of a tap looks.

    Nothing is raised: that nobody reads it, as behind a logger that has died, may stop no part of the tap.
    """
    if sys.stderr is None:  # closed before the process began
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"ullage tap: {sentence}\n")
        sys.stderr.flush()
