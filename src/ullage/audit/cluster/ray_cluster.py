"""A Ray cluster to recompute on: one of our own that ends with the audit, or one that is there already.

Ray pickles what it passes between processes, and who may speak to a cluster may run code on all of its
machines. So a cluster of our own listens on the loopback interface alone and wants a token that only this
process and its children know; one that is joined must be the auditor's own (`docs/scale-out.md`). Ray's usage
statistics are off.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ullage.errors import FaultError, UsageError

_OBJECT_STORE_BYTES: Final = 128 << 20  # records go there and scores come back; both are small
_ADDRESS: Final = re.compile(r"auto|[A-Za-z0-9.-]{1,253}:[0-9]{1,5}|\[[0-9a-fA-F:]{2,45}\]:[0-9]{1,5}")
_QUIET: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
# Ray's switch for systems whose firewalls ask about every listening socket: all of them stay on 127.0.0.1.
_LOOPBACK: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Ray reads these when it is imported and keeps the token, so a process has one for all its audits.
OWN_SETTINGS: Final = {
    **_LOOPBACK,
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_worker_niceness": "0",  # else workers have what other processes leave
}
_secured: list[bool] = []  # not empty: Ray was imported under these settings


@dataclass(frozen=True)
class RayOptions:
    """How to use Ray.

    `address`: HOST:PORT of a cluster's head, or `auto` for one on this machine; None starts one for the
    audit. `workers`: None for as many as the cluster's processors allow. `threads`: of each worker.
    """

    address: str | None = None
    workers: int | None = None
    threads: int = 1


def ray_options(
    engine: str, address: str | None, workers: int | None, threads: int | None
) -> RayOptions | None:
    """Options as a user gives them; None for the engine `local`. Raises UsageError for what does not fit."""
    if engine not in {"local", "ray"}:
        raise UsageError(f"--engine is local or ray, not {engine[:40]!r}.")
    if engine == "ray":
        return RayOptions(address, workers, threads or 1)
    if workers is not None or address is not None:
        raise UsageError("--workers and --address belong to --engine ray.")
    return None


@dataclass(frozen=True)
class Cluster:
    """A connection, and how many workers to use."""

    ray: Any
    workers: int
    threads: int
    name: str
    """For sentences: "a Ray of its own", "the Ray cluster at …"."""


def check_ray(options: RayOptions) -> None:
    """Raise UsageError for what can be told before anything is started: options, and a missing Ray."""
    if options.address is not None and not _ADDRESS.fullmatch(options.address):
        raise UsageError(
            f"{options.address[:80]!r} is not the address of a Ray cluster: give HOST:PORT as `ray start "
            "--head` printed it, or 'auto'."
        )
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "Ray is not installed here: run `pip install 'ullage[ray]'`, or leave out --engine ray."
        )


@contextlib.contextmanager
def joined(options: RayOptions) -> Iterator[Cluster]:
    """Connect to a cluster, or start one; disconnect or end it with the block.

    Raises UsageError, FaultError.
    """
    check_ray(options)
    with contextlib.ExitStack() as stack:
        own = options.address is None
        if own and "ray" in sys.modules and not _secured:
            raise UsageError(
                "This process imported Ray already, so a cluster of the audit's own could be reached from "
                "outside: audit in a process of its own, or start Ray yourself and give its address."
            )
        stack.enter_context(_environment({**_QUIET, **(OWN_SETTINGS if own else {})}))
        if own:
            _secured[:] = [True]
        import ray

        if ray.is_initialized():
            raise UsageError("This process is connected to a Ray cluster already: call ray.shutdown() first.")
        # Ray tells of lost workers on standard output, which is the command's own.
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        # Removed after the shutdown, whose processes may still close files in it.
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="ullage-ray-", ignore_cleanup_errors=True)
        )
        stack.callback(ray.shutdown)
        if own:
            workers = options.workers or _usable_cores() // options.threads or 1
            _start(ray, folder, workers * options.threads)
            name = "a Ray of its own on this machine"
        else:
            _connect(ray, str(options.address))
            room = int(ray.cluster_resources().get("CPU", 0)) // options.threads
            if room < 1:
                raise UsageError(
                    f"The Ray cluster at {options.address} has no room for {options.threads} threads."
                )
            workers = min(options.workers or room, room)
            name = f"the Ray cluster at {options.address}"
        yield Cluster(ray, workers, options.threads, name)


def _start(ray: Any, folder: str, processors: int) -> None:
    try:
        ray.init(
            address="local", num_cpus=processors, include_dashboard=False, _temp_dir=folder,
            _node_ip_address="127.0.0.1", object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False, configure_logging=False, logging_level="ERROR",
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise FaultError(f"Ray did not start on this machine: {_first_line(error)}") from error
    address = str(ray.get_runtime_context().gcs_address)
    host = address.rpartition(":")[0].strip("[]")
    if not ipaddress.ip_address(host).is_loopback:
        raise FaultError(f"Ray listens on {host} instead of the loopback interface, so it was ended again.")


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UsageError(
            f"No Ray cluster could be joined at {address}: {_first_line(error)} (Does it run, with this "
            "version of Ray and Python, and does this process have its token?)"
        ) from error


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for this process and what it starts, and put the old ones back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
