"""`isolate`: run a server whose only way out is a capped cable that ends at the tap.

Two network namespaces are made. The server lives in one, with loopback and one end of a veth pair. The other
holds the tap's end and nothing else; the tap moves in with `enter` after it has bound the socket for its
clients, which stays where it was made. So the host's own network is not reachable from the cable at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ullage.errors import FaultError, UsageError
from ullage.network import cable, namespaces, shaping
from ullage.network.confine import ALL_PROTECTIONS, Specification
from ullage.network.link import Link, default_link
from ullage.network.namespaces import NetworkNamespace, NotPermittedError
from ullage.network.rootfs import python_paths

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_LISTENING = "0A"
_WHY = {
    "network": "the server keeps every way out of this machine",
    "mount": "the server sees the file system of this machine: files and unix sockets are ways out",
    "root": "the server sees the file system of this machine: files and unix sockets are ways out",
    "uts": "the host name is shared",
    "ipc": "System V shared memory and message queues are ways out",
    "cgroup": "the server sees the control groups of this machine",
    "pid": "the server sees other processes and may signal or trace them",
    "capabilities": "the server may change its network, send raw frames and more",
    "no-new-privileges": "set-user-id programs may give it capabilities back",
    "seccomp": "vsock, keyrings, io_uring and new namespaces are not closed",
}


@dataclass(frozen=True)
class Isolation:
    """A server that runs isolated. `held` and `missing` are names of protections, the latter with reasons."""

    link: Link
    cap: shaping.Cap
    tap_side: NetworkNamespace
    server_side: NetworkNamespace
    process: subprocess.Popen[bytes]
    held: tuple[str, ...]
    missing: Mapping[str, str]

    @property
    def upstream(self) -> str:
        """The server's address for a tap that has entered."""
        return f"http://{self.link.server.address}:{self.link.port}"

    def enter(self) -> None:
        """Move the calling thread to the tap's end of the cable; sockets made before stay where they are.

        For a whole process: call it before other threads start. Raises NotPermittedError.
        """
        self.tap_side.enter()

    def wait_until_listening(self, seconds: float) -> None:
        """Wait until the server accepts connections, without sending a byte. Raises FaultError."""
        deadline = time.monotonic() + seconds
        while not self._listening():
            if self.process.poll() is not None:
                raise FaultError(
                    f"The isolated server ended with status {self.process.returncode} before it listened."
                )
            if time.monotonic() > deadline:
                raise FaultError(
                    f"The isolated server does not listen on {self.link.server.address}:{self.link.port} "
                    f"after {seconds:g} s; its command must bind that address."
                )
            time.sleep(0.05)

    def unprotected(self) -> list[str]:
        """A sentence for every protection that is missing."""
        return [f"{name}: {_WHY[name]} ({reason})" for name, reason in self.missing.items()]

    def _listening(self) -> bool:
        try:
            lines = Path(f"/proc/{self.process.pid}/net/tcp").read_text("ascii").splitlines()[1:]
        except OSError:
            return False
        wanted = (f"{self.link.port:04X}", _LISTENING)
        return any((fields[1].rpartition(":")[2], fields[3]) == wanted for fields in map(str.split, lines))


@dataclass(frozen=True)
class Confinement:
    """How the server's process is shut in beside its network. Paths are absolute.

    `readable`: folders and files that it may read (model, software); a Python of this environment is always
    there. `devices`: such as /dev/nvidia0. `allow_missing`: protections whose absence is accepted, and then
    named. `keep` (capability numbers) and `without` weaken it on purpose: for tests of what each protection
    prevents.
    """

    readable: Sequence[str | Path] = ()
    devices: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"
    output: int | IO[bytes] | None = None  # None: the server's output is thrown away, since it is a way out
    scratch_bytes: int = 256 << 20
    allow_missing: frozenset[str] = frozenset()
    keep: frozenset[int] = frozenset()
    without: frozenset[str] = frozenset()


@contextlib.contextmanager
def isolate(
    command: Sequence[str],
    cap: shaping.Cap,
    *,
    port: int = 8000,
    mtu: int = 1500,
    confinement: Confinement | None = None,
) -> Iterator[Isolation]:
    """Run `command` isolated for the length of the block; `{host}` and `{port}` in it are replaced.

    What earlier runs left behind after a crash is removed first. Call it from the main thread, whose end
    would end the server. Raises NotPermittedError, UsageError, FaultError.
    """
    cap.check()
    inside = confinement or Confinement()
    namespaces.remove_stale()
    token = namespaces.new_token()
    with contextlib.ExitStack() as stack:
        server_side = _namespace("server", token, stack)
        tap_side = _namespace("link", token, stack)
        link = default_link(port, mtu)
        cable.connect(link, tap_side, server_side)
        shaping.impose(cap, cable.TAP_INTERFACE, tap_side, link)
        server_side.run(lambda: cable.netlink("loopback", cable.raise_loopback))
        process, held, missing = _start(command, link, server_side, inside)
        stack.callback(_stop, process)
        yield Isolation(link, cap, tap_side, server_side, process, held, missing)


def _namespace(role: str, token: str, stack: contextlib.ExitStack) -> NetworkNamespace:
    namespace = namespaces.create(role, token)
    stack.callback(namespace.remove)
    return namespace


def _start(
    command: Sequence[str], link: Link, server_side: NetworkNamespace, inside: Confinement
) -> tuple[subprocess.Popen[bytes], tuple[str, ...], dict[str, str]]:
    if not command:
        raise UsageError("There is no command to isolate.")
    server_side.root.mkdir(mode=0o700, parents=True)
    words = [
        word.replace("{host}", link.server.address).replace("{port}", str(link.port)) for word in command
    ]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108
    specification = Specification(
        namespace=str(server_side.path),
        command=words,
        environment=environment | dict(inside.environment),
        folder=inside.folder,
        root=str(server_side.root),
        readable=[*python_paths(), *(str(path) for path in inside.readable)],
        devices=list(inside.devices),
        scratch_bytes=inside.scratch_bytes,
        keep=sorted(inside.keep),
        without=sorted(inside.without),
    )
    reader, writer = os.pipe()
    output = subprocess.DEVNULL if inside.output is None else inside.output
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ullage.network.confine", str(writer), specification.to_json()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(writer,),
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    finally:
        os.close(writer)
    try:
        held, missing = _read_status(reader, process)
        _check_protections(missing, inside)
    except BaseException:
        _stop(process)
        raise
    finally:
        os.close(reader)
    return process, held, missing


def _check_protections(missing: Mapping[str, str], inside: Confinement) -> None:
    refused = sorted(set(missing) - inside.allow_missing - inside.without)
    if refused:
        raise NotPermittedError(
            "The server cannot be isolated here. "
            + " ".join(f"Missing: {name}, so {_WHY[name]} ({missing[name]})." for name in refused)
        )


def _read_status(reader: int, process: subprocess.Popen[bytes]) -> tuple[tuple[str, ...], dict[str, str]]:
    data = b""
    deadline = time.monotonic() + _START_SECONDS
    while not data.endswith(b"\n"):
        if not select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise FaultError(f"The isolated server did not start within {_START_SECONDS:g} s.")
        piece = os.read(reader, 1 << 16)
        if not piece:
            raise FaultError(
                f"The isolated server could not be started (status {process.wait(_STOP_SECONDS)})."
            )
        data += piece
    status = json.loads(data)
    missing = {
        name: status["missing"].get(name, "not reached")
        for name in ALL_PROTECTIONS
        if name not in status["held"]
    }
    return tuple(status["held"]), missing


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server: politely, then for good. Its whole process namespace ends with it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
