"""The one hierarchy of errors, and the exit codes that every command shares.

A message says what is wrong and what to do about it; the command line prints it as one sentence
and never a traceback. Every room may import this file and nothing else of ours by default.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a process of ours ends with."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    CANNOT_TELL = 3
    FAULT = 4


class UllageError(Exception):
    """Base of everything that we raise on purpose."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAULT


class UsageError(UllageError):
    """The caller asked for something that cannot be: a wrong option, a missing file."""

    exit_code = ExitCode.USAGE


class IntegrityError(UllageError):
    """Evidence contradicts itself: a broken signature, a root that does not match, a gap."""

    exit_code = ExitCode.FAIL


class MalformedError(IntegrityError):
    """Bytes that should follow one of our formats do not."""


class UndecidedError(UllageError):
    """The evidence is sound but not enough to say either way."""

    exit_code = ExitCode.CANNOT_TELL


class FaultError(UllageError):
    """The world failed: a disk is full, a peer is gone."""

    exit_code = ExitCode.FAULT
