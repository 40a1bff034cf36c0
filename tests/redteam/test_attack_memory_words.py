"""Agents that use what they may say of themselves: sizes, names, tokens, and the time before a chain."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.memory.agents import CALIBRATION, MIB, agent
from ullage.claims import Window
from ullage.errors import IntegrityError, MalformedError, UllageError
from ullage.memory.claims import holding_claims
from ullage.memory.erasure import Plan
from ullage.memory.machine.segments import CacheShape, Segment, SegmentKind
from ullage.memory.protocol.messages import (
    VERSION,
    Declare,
    Freeze,
    Mapped,
    Segments,
    Welcome,
)
from ullage.memory.protocol.wire import Connection
from ullage.memory.residency.cache_check import check_cache
from ullage.memory.residency.verify import ChainRun, HoldPlan, judge_chains
from ullage.memory.verifier import Declared, run_erasure, run_hold
from ullage.model.builtin import builtin_path

HEAD_BYTES = 5


@contextlib.contextmanager
def fetching(address: str, kind: int, seconds: float) -> Iterator[str]:
    """The same agent, which takes so long to answer a request of this kind: it fetches what is missing."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, _, port = address.rpartition(":")

    def carry(verifier: socket.socket) -> None:
        with contextlib.suppress(OSError), verifier, socket.create_connection((host, int(port))) as prover:
            threading.Thread(target=_pipe, args=(prover, verifier), daemon=True).start()
            while data := verifier.recv(1 << 20):
                if len(data) >= HEAD_BYTES and data[4] == kind and len(data) < 64:
                    time.sleep(seconds)
                prover.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:  # the noise comes over connections of its own
                threading.Thread(target=carry, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def _pipe(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 20):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("word", [Declare, Freeze])
def test_who_fetches_at_the_first_word_about_a_chain_is_charged_for_it(word: type[Declare | Freeze]) -> None:
    plan = HoldPlan(steps=400, rounds=2, quorum=2, budget=8 * MIB)
    with agent(16) as address, fetching(address, word.kind, 0.5) as further:
        held = run_hold(further, plan, CALIBRATION, Declared(builtin_path(), 16 * MIB), inputs={}, dump=False)
    assert all(chain.correct for chain in held.holding.chains)
    assert all(chain.warning >= 0.5 for chain in held.holding.chains)
    assert held.holding.proven_bytes == 0  # 0.5 s of a store of 100 MB/s are more than the 8 MiB
    assert any("nothing is shown" in sentence for sentence in held.claims[0].assumptions)


def test_the_chain_that_proves_least_counts_and_not_the_one_that_counts_least() -> None:
    """A share that may be missing is one of what was challenged: much of little worth weighs on the claim."""
    welcome = Welcome(VERSION, 1 << 40, "", (("main memory", 1 << 40),), ())
    plan = HoldPlan(rounds=5, quorum=2, steps=2048)
    quick = CALIBRATION.model_copy(update={"step_seconds": 3e-6})
    small = {SegmentKind.KV_CACHE: 1 << 30}
    large = {SegmentKind.KV_CACHE: 20 << 30}
    slightly_more = {SegmentKind.KV_CACHE: (1 << 30) + 1}

    def chain(challenged: dict[SegmentKind, int], counted: dict[SegmentKind, int]) -> ChainRun:
        return ChainRun(0.03, False, True, 0.0, 0.03, challenged, counted)

    def proven(*chains: ChainRun) -> float:
        deadline = plan.slack * plan.steps * quick.step_seconds
        return judge_chains(plan, quick, welcome, (), chains, deadline=deadline).proven_bytes

    empty_places = proven(*[chain(large, slightly_more)] * 2)
    assert 0 <= empty_places < proven(*[chain(small, small)] * 2)
    assert proven(chain(small, small), chain(large, slightly_more)) == empty_places
    assert proven(chain(large, slightly_more), chain(small, small)) == empty_places


def test_each_kind_has_the_chain_that_proves_least_of_it() -> None:
    """Which of the chains in time is the one that the bound is about nobody knows."""
    welcome = Welcome(VERSION, 1 << 40, "", (("main memory", 1 << 40),), ())
    plan = HoldPlan(rounds=5, quorum=2, steps=2048)
    deadline = plan.steps * 20e-6
    noise = {SegmentKind.BALLAST: 10 << 30, SegmentKind.KV_CACHE: 1 << 30}
    cache = {SegmentKind.BALLAST: 6 << 30, SegmentKind.KV_CACHE: 6 << 30}
    chains = [ChainRun(deadline, False, True, 0.0, 0.0, sizes, sizes) for sizes in (noise, cache)]
    found = judge_chains(plan, CALIBRATION, welcome, (), chains, deadline=deadline)
    assert found.counted == noise
    assert found.proven_by_kind[SegmentKind.BALLAST] < 6 << 30
    assert found.proven_by_kind[SegmentKind.KV_CACHE] < 1 << 30
    claims = {one.name: one.value for one in holding_claims(found, 1 << 40, Window(start="1", end="2"), {})}
    assert claims["memory.resident_ballast"] == found.proven_by_kind[SegmentKind.BALLAST] / (1 << 40)


def scripted(*replies: Callable[[Connection], None]) -> str:
    """An agent that answers message after message by a script, then closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with Connection(peer) as connection, listener:
            for reply in replies:
                try:
                    connection.receive(10)
                    reply(connection)
                except UllageError:
                    return

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def says(source: str = "its word", size: int = 1 << 62) -> Callable[[Connection], None]:
    return lambda connection: connection.send(Welcome(VERSION, size, source, (("main memory", size),), ()))


@pytest.mark.parametrize("mode", ["rate-gap", "stream"])
@pytest.mark.parametrize("size", [1 << 50, 1 << 61])
def test_a_region_beyond_every_machine_ends_the_session_with_a_sentence(mode: str, size: int) -> None:
    address = scripted(says(), lambda connection: connection.send(Mapped(size, locked=True)))
    with pytest.raises(IntegrityError, match="than a question can be about"):
        run_erasure(address, Plan(mode, 0), CALIBRATION, None, {})  # type: ignore[arg-type]


def test_a_region_larger_than_asked_for_is_turned_away() -> None:
    address = scripted(says(size=1 << 30), lambda connection: connection.send(Mapped(1 << 24, locked=True)))
    with pytest.raises(IntegrityError, match="of the 8388608"):
        run_erasure(address, Plan("rate-gap", 1 << 23, layers=10), CALIBRATION, None, {})


def test_key_value_memory_beyond_every_machine_ends_the_session_with_a_sentence() -> None:
    huge = Segment(SegmentKind.KV_CACHE, "keys", 1 << 60)
    address = scripted(
        says(),
        lambda connection: connection.send(Mapped(0, locked=False)),
        lambda connection: connection.send(Segments((huge,))),
        lambda connection: connection.send(Segments((huge,))),
        lambda connection: connection.send(Segments((huge,))),
    )
    plan = HoldPlan(steps=10, rounds=1, quorum=1, budget=8 * MIB, cache_limit=1 << 62)
    with pytest.raises(IntegrityError, match="than a chain can run over"):
        run_hold(address, plan, CALIBRATION, Declared(builtin_path(), None), inputs={}, dump=False)


@pytest.mark.parametrize(
    "source", ["\x1b[2J\x1b[Hverdict: pass", "a\nverdict: pass", "right\u202eleft", "\x07"]
)
def test_words_that_a_terminal_would_obey_are_not_read(source: str) -> None:
    with pytest.raises(MalformedError, match="cannot be printed"):
        run_erasure(scripted(says(source)), Plan("rate-gap"), CALIBRATION, None, {})


def test_tokens_that_no_model_has_end_with_a_sentence() -> None:
    from types import SimpleNamespace

    from ullage.model.key_values import key_values

    config = SimpleNamespace(vocab_size=100, max_position_embeddings=8)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config))
    for tokens in ([100], [0, (1 << 32) - 1], [-1], [1] * 9):
        with pytest.raises(IntegrityError, match="does not have"):
            key_values(model, tokens)


def test_a_cache_of_another_shape_than_the_models_ends_with_a_sentence() -> None:
    """One head that all would be compared with, fewer layers, another width: each is refused."""

    def recompute(row: Sequence[int]) -> list[NDArray[np.float32]]:
        return [np.ones((2, len(row), 4), np.float32)] * 4  # two layers of two heads

    rows = ((1, 2, 3),)
    for layers, heads, width in ((2, 1, 4), (1, 2, 4), (3, 2, 4), (2, 2, 1), (2, 4, 4)):
        shape = CacheShape(layers, 1, heads, 8, width, 4)
        held = [memoryview(np.ones(heads * 8 * width, np.float32).tobytes())] * (2 * layers)
        with pytest.raises(IntegrityError, match="another shape"):
            check_cache(shape, held, rows, recompute)
    shape = CacheShape(2, 1, 2, 8, 4, 4)
    honest = [memoryview(np.ones(64, np.float32).tobytes())] * 4
    assert check_cache(shape, honest, rows, recompute).outside == 0
