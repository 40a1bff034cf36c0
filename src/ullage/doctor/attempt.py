"""Attempts that change the process that makes them: `python -m ullage.doctor.attempt NAME`.

Each runs in a process of its own, which ends with it, so nothing that it makes stays: a namespace, a link in
that namespace, a lock on memory. It prints one JSON object: `ok`, and `why` and `number` if not.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from ullage.network import syscalls

_SECONDS = 20.0
_ALL_FRAMES = 0x0003
_LOCKED_BYTES = 64 << 20

NAMESPACES = {
    "network": syscalls.CLONE_NEWNET,
    "mount": syscalls.CLONE_NEWNS,
    "pid": syscalls.CLONE_NEWPID,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "cgroup": syscalls.CLONE_NEWCGROUP,
}


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `ok` is None if it could not be made at all; `number` is an errno, or 0."""

    ok: bool | None
    why: str = ""
    number: int = 0


def attempt(name: str) -> Outcome:
    """Make one attempt of this module in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ullage.doctor.attempt", name],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        value = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Outcome(None, f"it did not end within {_SECONDS:g} s")
    except (OSError, ValueError):
        return Outcome(None, "the attempt's process ended without an answer")
    return Outcome(bool(value["ok"]), str(value["why"]), int(value["number"]))


def _unshare(kind: str) -> None:
    syscalls.unshare(NAMESPACES[kind])


def _user() -> None:
    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNET)


def _cable() -> None:
    """A veth pair with a token bucket, and the intermediate device behind it, as the cap has them."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    from pyroute2 import IPRoute

    with IPRoute() as route:
        route.link("add", ifname="doctor0", kind="veth", peer={"ifname": "doctor1"})
        route.link("add", ifname="doctor2", kind="ifb")
        for name in ("doctor0", "doctor2"):
            index = route.link_lookup(ifname=name)[0]
            route.link("set", index=index, state="up")
            route.tc("add", "tbf", index, 0x10000, rate=100_000, burst=8192, latency="50ms")


def _packet() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_FRAMES)).close()


def _lock() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(-1, _LOCKED_BYTES) as area:
        view = (ctypes.c_char * _LOCKED_BYTES).from_buffer(area)
        failed = libc.mlock(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(_LOCKED_BYTES))
        number = ctypes.get_errno()
        del view
    if failed:
        raise OSError(number, f"mlock of {_LOCKED_BYTES >> 20} MiB: {os.strerror(number)}")


def _lock_by_right() -> None:
    """As `lock`, with a limit of nothing: what still locks has CAP_IPC_LOCK, outside user namespaces too."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]))
    _lock()


def _attempts() -> dict[str, Callable[[], None]]:
    made: dict[str, Callable[[], None]] = {
        f"namespace-{kind}": lambda kind=kind: _unshare(kind)  # type: ignore[misc]
        for kind in NAMESPACES
    }
    return made | {
        "user-namespace": _user,
        "cable": _cable,
        "packet": _packet,
        "lock": _lock,
        "lock-by-right": _lock_by_right,
    }


def main(name: str) -> None:
    """Make the attempt here and print how it ended."""
    outcome: dict[str, object] = {"ok": True, "why": "", "number": 0}
    try:
        _attempts()[name]()
    except Exception as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        number = getattr(error, "errno", None) or 0
        outcome = {"ok": False, "why": text or type(error).__name__, "number": number}
    sys.stdout.write(json.dumps(outcome))


if __name__ == "__main__":
    main(sys.argv[1])
