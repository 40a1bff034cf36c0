"""An answer that is right and late shows nothing: whatever was missing could have been made again by then."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.memory.agents import CALIBRATION, MIB, agent
from ullage.memory.erasure import Plan
from ullage.memory.protocol.messages import Link, Tags
from ullage.memory.residency.verify import HoldPlan
from ullage.memory.verifier import Declared, run_erasure, run_hold
from ullage.model.builtin import builtin_path

SIZE_MIB = 16
SPOTS = Plan("stream", SIZE_MIB * MIB, by="spots", rounds=4, quorum=2)
RATES = CALIBRATION.model_copy(update={"store_rate": 0.0, "store_reads": 1.0})
_HEAD_BYTES = 5


@contextlib.contextmanager
def far_away(address: str, seconds: float) -> Iterator[str]:
    """The same agent, whose answers to challenges arrive so much later; all else passes at once."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, _, port = address.rpartition(":")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:  # the session and its lanes
                verifier, _ = listener.accept()
                threading.Thread(target=carry, args=(verifier,), daemon=True).start()

    def carry(verifier: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            verifier,
            socket.create_connection((host, int(port))) as prover,
        ):
            threading.Thread(target=_pipe, args=(verifier, prover), daemon=True).start()
            while head := _exactly(prover, _HEAD_BYTES):
                body = _exactly(prover, int.from_bytes(head[:4], "big") - 1)
                if head[4] in (Tags.kind, Link.kind):
                    time.sleep(seconds)
                verifier.sendall(head + body)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def _pipe(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 20):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = source.recv(size - len(data))
        if not piece:
            return b""
        data += piece
    return data


def test_a_right_answer_after_its_deadline_is_no_proof() -> None:
    with agent(SIZE_MIB) as address:
        near, (claim,) = run_erasure(address, SPOTS, RATES, SIZE_MIB * MIB, {})
        assert near.verdict == "pass"
        assert claim.value is not None
        assert claim.value > 0
        with far_away(address, near.deadline * 1.5) as further:
            far, claims = run_erasure(further, SPOTS, RATES, SIZE_MIB * MIB, {})
    assert all(one.correct and one.late for one in far.timings)
    assert far.verdict == "cannot-tell"
    assert claims[0].value == pytest.approx(0.0)


def test_a_right_chain_after_its_deadline_is_no_proof() -> None:
    plan = HoldPlan(steps=50, rounds=2, quorum=1, budget=16 * MIB)
    rates = CALIBRATION.model_copy(update={"alternative_seconds": 1.0})
    declared = Declared(builtin_path(), 16 * MIB)
    with agent(SIZE_MIB) as address:
        near = run_hold(address, plan, rates, declared, inputs={}, dump=False)
        assert near.holding.verdict == "pass"
        with far_away(address, near.holding.deadline * 1.5) as further:
            far = run_hold(further, plan, rates, declared, inputs={}, dump=False)
    assert all(chain.correct and chain.late for chain in far.holding.chains)
    assert far.holding.verdict == "cannot-tell"
    assert not far.claims[0].value
