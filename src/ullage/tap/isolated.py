"""The server behind an isolated tap: started on a cable of its own, capped by the kernel."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ullage.errors import UllageError, UsageError
from ullage.network import namespaces
from ullage.network.confine import ALL_PROTECTIONS
from ullage.network.isolation import Confinement, Isolation, isolate
from ullage.network.rootfs import python_environment
from ullage.network.shaping import Cap
from ullage.tap.tell import tell_operator

if TYPE_CHECKING:
    from ullage.tap.config import TapConfig

_START_SECONDS = 600.0  # a large model takes minutes to load; a server that ends is noticed at once


def parse_command(value: object) -> object:
    """The words of a command line as a POSIX shell would split it. No shell runs it. Raises ValueError."""
    return tuple(shlex.split(value)) if isinstance(value, str) else value


def parse_list(value: object) -> object:
    """The items of `A:B:C`."""
    if not isinstance(value, (str, Path)):
        return value
    return tuple(item for item in str(value).split(os.pathsep) if item)


@contextlib.contextmanager
def isolated_server(config: TapConfig) -> Iterator[Isolation | None]:
    """The configured server, isolated, for the length of the block; None where it is somewhere else.

    On standard error it says what holds, and what was given up. Raises NotPermittedError, which says what
    protection is missing, UsageError, FaultError.
    """
    if config.isolate is None or config.cap is None:
        yield None
        return
    strangers = sorted(set(config.isolate_without) - set(ALL_PROTECTIONS))
    if strangers:
        raise UsageError(f"{strangers[0]} is no protection; there are {', '.join(ALL_PROTECTIONS)}.")
    with contextlib.ExitStack() as stack:
        output = (
            None if config.isolate_output is None else stack.enter_context(_output(config.isolate_output))
        )
        confinement = Confinement(
            readable=[str(path.absolute()) for path in _readable(config)],
            devices=config.isolate_devices,
            environment=python_environment(),
            output=output,
            allow_missing=frozenset(config.isolate_without),
        )
        isolation = stack.enter_context(
            isolate(config.isolate, Cap.both(int(config.cap)), confinement=confinement)
        )
        for sentence in isolation.unprotected():
            tell_operator(f"NOT PROTECTED: {sentence}")
        tell_operator(
            f"the server is isolated ({', '.join(isolation.held)}); "
            f"its cable is link0 in network namespace {isolation.tap_side.name}"
        )
        isolation.wait_until_listening(_START_SECONDS)
        yield isolation


def why_not_permitted() -> str:
    """Why a server cannot be isolated here; empty if its network can be."""
    try:
        namespaces.create("peer", namespaces.new_token()).remove()
    except UllageError as error:
        return str(error)
    return ""


def _readable(config: TapConfig) -> list[Path]:
    return [*config.isolate_readable, *([] if config.model is None else [config.model])]


@contextlib.contextmanager
def _output(path: Path) -> Iterator[int]:
    """A file for what the server writes: a way out, so it is opened on purpose only. Raises UsageError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"The server's output cannot be written to {path}: {error.strerror}.") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
