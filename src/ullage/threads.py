"""Threads that libraries would start by themselves."""

from __future__ import annotations

from typing import Final

ALONE: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""What numerical libraries read, when they are loaded, to learn how many threads they may start: for the
environment of a process that is one of many."""
