"""Named network namespaces of ours: made, entered, found again after a crash and removed.

A namespace is named `ullage-<pid>-<start>-<token>-<role>`: the process that made it and the moment that
process started, so that a name left behind by a crash is recognised even when the process id has been used
again. Names live in /run/netns, where `ip netns` finds them too.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ullage.errors import FaultError, UsageError
from ullage.network import syscalls

FOLDER = Path("/run/netns")
ROOTS = Path("/run/ullage")
_NAME = re.compile(r"ullage-([0-9]{1,10})-([0-9]{1,20})-([0-9a-f]{6})-(server|link|peer)")
_Result = TypeVar("_Result")


class NotPermittedError(UsageError):
    """This process may not make network namespaces; the message says what protection that leaves out."""


@dataclass(frozen=True)
class NetworkNamespace:
    """A network namespace with a name in /run/netns."""

    name: str

    @property
    def path(self) -> Path:
        return FOLDER / self.name

    @property
    def root(self) -> Path:
        """An empty folder on which a server in this namespace builds its own root."""
        return ROOTS / self.name

    def run(self, function: Callable[[], _Result]) -> _Result:
        """Call `function` in a thread that lives in this namespace: sockets made there belong to it."""

        def inside() -> _Result:
            self.enter()
            return function()

        return _in_thread(inside)

    def enter(self) -> None:
        """Move the calling thread here, for good. Raises UsageError when the namespace is gone."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"There is no network namespace '{self.name}': {error.strerror}.") from error
        try:
            syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
        except OSError as error:
            raise NotPermittedError(
                f"The network namespace '{self.name}' cannot be entered ({error.strerror}); "
                "that needs CAP_SYS_ADMIN."
            ) from error
        finally:
            os.close(descriptor)

    def set_sysctl(self, key: str, value: str) -> None:
        """Set a `net.` parameter of this namespace, such as `ipv4.tcp_sack`. Raises FaultError."""
        self.run(lambda: _write_sysctl(key, value))

    def remove(self) -> None:
        """Take the name away; the namespace ends with the last process or socket in it."""
        with contextlib.suppress(OSError):
            syscalls.unmount(str(self.path), syscalls.MNT_DETACH)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        with contextlib.suppress(OSError):
            self.root.rmdir()


def create(role: str, token: str) -> NetworkNamespace:
    """Make a namespace that this process owns. Raises NotPermittedError, FaultError."""
    pid = os.getpid()
    namespace = NetworkNamespace(f"ullage-{pid}-{_start_time(pid)}-{token}-{role}")
    try:
        FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.close(os.open(namespace.path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except OSError as error:
        raise NotPermittedError(_missing(error)) from error
    try:
        _in_thread(lambda: _detach_and_bind(namespace.path))
    except OSError as error:
        namespace.path.unlink(missing_ok=True)
        raise NotPermittedError(_missing(error)) from error
    return namespace


def new_token() -> str:
    """What tells the namespaces of one isolation from those of another in the same process."""
    return secrets.token_hex(3)


def remove_stale() -> list[str]:
    """Remove the names of namespaces of ours whose maker is no longer alive; returns them."""
    removed = []
    for namespace in _ours():
        found = _NAME.fullmatch(namespace.name)
        if found and _start_time(int(found[1])) != int(found[2]):
            namespace.remove()
            removed.append(namespace.name)
    return removed


def find(name: str) -> NetworkNamespace:
    """A namespace by name, also one that `ip netns add` made. Raises UsageError."""
    if "/" in name or not (FOLDER / name).exists():
        raise UsageError(f"There is no network namespace '{name}'; `ip netns list` shows what there is.")
    return NetworkNamespace(name)


def _ours() -> Iterator[NetworkNamespace]:
    if FOLDER.is_dir():
        for path in sorted(FOLDER.iterdir()):
            if _NAME.fullmatch(path.name):
                yield NetworkNamespace(path.name)


def _start_time(pid: int) -> int:
    """Clock ticks after boot at which a process started; 0 if there is none."""
    try:
        # Field 22; the second is a name in brackets that may hold anything, so count from its end.
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _detach_and_bind(path: Path) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
    syscalls.mount(own, str(path), None, syscalls.MS_BIND)


def _write_sysctl(key: str, value: str) -> None:
    try:
        Path("/proc/sys/net", *key.split(".")).write_text(value, "ascii")
    except OSError as error:
        raise FaultError(f"The kernel refuses net.{key} = {value}: {error.strerror}.") from error


def _missing(error: OSError) -> str:
    return (
        f"Network namespaces are not permitted here ({error.strerror}), so the server would keep every way "
        "out of this machine: no isolation, no cap in the kernel. Run as root (CAP_SYS_ADMIN, CAP_NET_ADMIN) "
        "or put the server on a machine whose only cable ends at the tap."
    )


def _in_thread(function: Callable[[], _Result]) -> _Result:
    """Run in a thread of its own, because a change of network namespace is a thread's and for good."""
    outcome: list[_Result] = []
    failure: list[BaseException] = []

    def call() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # raised again in the thread that asked
            failure.append(error)

    thread = threading.Thread(target=call, name="ullage-namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
