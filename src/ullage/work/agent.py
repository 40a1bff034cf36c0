"""The prover's processes: one a slot, all accepting at one port, each serving one verifier at a time.

Workers run in the scheduling class SCHED_IDLE, so that the kernel gives them only what inference leaves:
a thread that serves a request runs at once, and filler takes up again when it sleeps.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

from ullage.errors import FaultError, UllageError, UsageError
from ullage.work.protocol import MAX_FROM_VERIFIER
from ullage.work.prover import Prover
from ullage.work.stream import Stream

Factory = Callable[[], Prover]
MAX_SLOTS = 1024
_HELLO_SECONDS = 10.0
_IDLE_SECONDS = 900.0
"""A verifier has jobs outstanding all the time. One that is silent for so long has gone without a word, and
would keep the slot from the next one."""


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
        with contextlib.suppress(OSError):  # not allowed: filler then competes, which costs only latency
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        connection, _ = listener.accept()
        serve_connection(Stream(connection, MAX_FROM_VERIFIER), factory())


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
    context = get_context("spawn")
    workers: list[SpawnProcess] = []
    signal.signal(signal.SIGTERM, _stop)
    try:
        for _ in range(slots):
            worker = context.Process(
                target=serve_slot, args=(listener, factory), kwargs={"idle_class": idle_class}, daemon=True
            )
            worker.start()
            workers.append(worker)
        address = listener.getsockname()
        announce(f"listening on {address[0]}:{address[1]}")
        wait([worker.sentinel for worker in workers])  # for whichever ends first
        raise FaultError("A worker of the agent ended; its slot would stay unaccounted, so the agent stops.")
    finally:
        for worker in workers:
            worker.terminate()
        listener.close()


def _stop(number: int, frame: object) -> None:
    raise SystemExit(0)
