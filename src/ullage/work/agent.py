"""The prover's processes: one a slot, all accepting at one port, each serving one verifier at a time.

Workers run in the scheduling class SCHED_IDLE, so that the kernel gives them only what inference leaves:
a thread that serves a request runs at once, and filler takes up again when it sleeps.

The class belongs to a thread, and a library's threads have the one of the thread that loaded it. So a worker
has no thread beside its own, and any that is there all the same gets the class too: one at normal priority
that spins until the idle thread has done its part of a product keeps that very thread from the processor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from ullage.errors import FaultError, UllageError, UsageError
from ullage.sockets import break_when_lost
from ullage.threads import ALONE
from ullage.work.protocol import MAX_FROM_VERIFIER
from ullage.work.prover import Prover
from ullage.work.stream import Stream

Factory = Callable[[], Prover]
MAX_SLOTS = 1024
_HELLO_SECONDS = 10.0
_IDLE_SECONDS = 900.0
"""A verifier has jobs outstanding all the time. One that is silent for so long would keep the slot from the
next one."""


def listen(host: str, port: int, backlog: int = MAX_SLOTS) -> socket.socket:
    """A listening socket. Raises FaultError."""
    try:
        return socket.create_server((host, port), backlog=backlog)
    except OSError as error:
        raise FaultError(f"{host}:{port} cannot be listened at: {error.strerror}.") from error


def serve_slot(listener: socket.socket, factory: Factory, *, idle_class: bool = True) -> None:
    """Serve one verifier after the other, for ever. One thread computes."""
    import torch

    torch.set_num_threads(1)
    if idle_class:
        _enter_idle_class()
    while True:
        serve_connection(accept(listener), factory())


def accept(listener: socket.socket) -> Stream:
    """The next verifier, whose connection breaks when its machine has vanished."""
    connection, _ = listener.accept()
    break_when_lost(connection)
    return Stream(connection, MAX_FROM_VERIFIER)


def _enter_idle_class() -> None:
    """Every thread of this process. Not allowed: filler then competes, which costs only latency."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


def serve_connection(stream: Stream, prover: Prover) -> None:
    """Answer until the verifier leaves, or says something that no verifier says."""
    try:
        patience = _HELLO_SECONDS
        while (message := stream.receive(patience)) is not None:
            patience = _IDLE_SECONDS
            for answer in prover.answer(message):
                stream.send(answer)
    except UllageError:
        pass  # the verifier sees a closed connection; there is nobody else to tell
    finally:
        stream.close()


@contextlib.contextmanager
def slot_workers(
    listener: socket.socket, slots: int, factory: Factory, *, idle_class: bool = True
) -> Iterator[list[SpawnProcess]]:
    """Processes that serve a slot each. They end with the context, and the listener with them."""
    context = get_context("spawn")
    workers: list[SpawnProcess] = []
    try:
        with _one_thread():
            for _ in range(slots):
                worker = context.Process(
                    target=serve_slot,
                    args=(listener, factory),
                    kwargs={"idle_class": idle_class},
                    daemon=True,
                )
                worker.start()
                workers.append(worker)
        yield workers
    finally:
        for worker in workers:
            worker.terminate()
        listener.close()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are started here load their libraries with one thread.

    By the environment: they load them before any line of ours runs there.
    """
    before = {name: os.environ.get(name) for name in ALONE}
    os.environ.update(ALONE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_agent(
    host: str,
    port: int,
    slots: int,
    factory: Factory,
    announce: Callable[[str], None],
    *,
    idle_class: bool = True,
) -> None:
    """Start the workers and wait. Raises UsageError, FaultError when a worker dies."""
    if not 1 <= slots <= MAX_SLOTS:
        raise UsageError(f"{slots} is no number of slots; give 1 to {MAX_SLOTS}.")
    listener = listen(host, port)
    address = listener.getsockname()
    signal.signal(signal.SIGTERM, _stop)
    with slot_workers(listener, slots, factory, idle_class=idle_class) as workers:
        announce(f"listening on {address[0]}:{address[1]}")
        wait([worker.sentinel for worker in workers])  # for whichever ends first
        raise FaultError("A worker of the agent ended; its slot would stay unaccounted, so the agent stops.")


def _stop(number: int, frame: object) -> None:
    raise SystemExit(0)
