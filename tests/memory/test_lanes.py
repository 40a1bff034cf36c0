"""Lanes of a stream: each where it belongs, none that does not belong, and an end when one does not come."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory.agents import CALIBRATION, MIB, agent
from ullage.errors import FaultError, IntegrityError
from ullage.memory.erasure import Plan, greet
from ullage.memory.noise.noise import BLOCK_BYTES, TAG_BYTES, StreamNoise
from ullage.memory.protocol.expectation import SEGMENT_BLOCKS, Expectation, draw_questions
from ullage.memory.protocol.lanes import Landing, blocks_of_a_lane, open_lanes
from ullage.memory.protocol.messages import (
    MAX_LANES,
    VERSION,
    Code,
    Done,
    Error,
    Lane,
    Map,
    Mapped,
    Received,
    Stream,
    Tags,
    encode,
)
from ullage.memory.protocol.questions import Ask
from ullage.memory.protocol.stream import check_receipt, send_noise
from ullage.memory.protocol.wire import AgentRefusedError, Connection, LateError, address_of
from ullage.memory.verifier import run_erasure

SIZE = 16 * MIB
NOISE = StreamNoise(bytes(range(32)))
TOKEN = bytes(range(16))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with agent(SIZE // MIB) as found:
        yield found


@contextlib.contextmanager
def session(address: str) -> Iterator[Connection]:
    """A greeted connection with the region mapped; waits while the agent notices that the last one ended."""
    with Connection.open(*address_of(address)) as connection:
        greet(connection)
        connection.ask(Map(0, SIZE), Mapped, 60)
        yield connection


def still_answers(address: str) -> bool:
    return run_erasure(address, Plan("stream", SIZE), CALIBRATION, None, {})[0].verdict == "pass"


@given(st.integers(1, 1 << 20), st.integers(1, MAX_LANES))
def test_lanes_cover_a_stream_in_whole_segments(blocks: int, lanes: int) -> None:
    size = blocks * BLOCK_BYTES
    lane_blocks = blocks_of_a_lane(size, lanes, SEGMENT_BLOCKS)
    parts = Stream(0, 0, size, lane_blocks, TOKEN).parts
    assert 1 <= len(parts) <= lanes
    assert [offset for offset, _ in parts] == [i * lane_blocks * BLOCK_BYTES for i in range(len(parts))]
    assert sum(count for _, count in parts) == size
    assert lane_blocks % SEGMENT_BLOCKS == 0


def test_noise_of_four_lanes_is_where_it_belongs(address: str) -> None:
    question = draw_questions(SIZE // BLOCK_BYTES, 1)[0]
    with session(address) as connection:
        with open_lanes(connection, 0, 0, SIZE, 17) as lanes:
            assert len(lanes) == 4
            for lane, offset, count in reversed(lanes):
                threading.Thread(target=lane.send_run, args=(NOISE.read(offset, count),)).start()
            tails = connection.expect(Received, 60).tails
            assert list(tails) == [NOISE.read(at + count - TAG_BYTES, TAG_BYTES) for _, at, count in lanes]
        answer = connection.ask(Ask(0, question), Tags, 60)
    assert list(answer.tags) == Expectation(lambda: NOISE, [question]).run()[0]


def test_tags_that_go_with_a_stream_are_those_made_afterwards(address: str) -> None:
    questions = draw_questions(SIZE // BLOCK_BYTES, 2)
    with session(address) as connection:
        tags = send_noise(connection, NOISE, (0, 0, SIZE), questions, limit=60)
    assert tags == Expectation(lambda: NOISE, questions).run()


@pytest.mark.parametrize("tails", [(), (bytes(16),), (bytes(15) + b"\1", bytes(16)), (bytes(16),) * 3])
def test_a_receipt_without_the_end_of_every_lane_is_refused(tails: tuple[bytes, ...]) -> None:
    check_receipt(Received((bytes(16), bytes(16))), [bytes(16)] * 2)
    with pytest.raises(IntegrityError):
        check_receipt(Received(tails), [bytes(16)] * 2)


def refused(lane: Connection, code: Code) -> None:
    with pytest.raises(AgentRefusedError) as caught:
        lane.expect(Done, 10)
    assert caught.value.code is code


def answering(*lanes: Connection) -> list[Connection]:
    """Those on which something comes: on a lane that is taken nothing ever does."""
    for _ in range(200):
        if found := [lane for lane in lanes if not lane.is_quiet()]:
            return found
        time.sleep(0.05)
    return []


def test_lanes_that_nobody_waits_for_are_refused(address: str) -> None:
    for lane, code in (
        (Lane(VERSION, TOKEN, 0), Code.MALFORMED),
        (Lane(2, TOKEN, 0), Code.VERSION),
    ):
        with Connection.open(*address_of(address)) as stranger:
            stranger.send(lane)
            refused(stranger, code)
    with session(address) as connection:
        connection.ask(Stream(0, 0, SIZE, SIZE // BLOCK_BYTES, TOKEN), Done, 10)
        for lane in (Lane(VERSION, bytes(16), 0), Lane(VERSION, TOKEN, 1)):
            with connection.beside() as stranger:
                stranger.send(lane)
                refused(stranger, Code.MALFORMED)
        with connection.beside() as one, connection.beside() as two:
            for peer in (one, two):
                peer.send(Lane(VERSION, TOKEN, 0))
            (refused_one,) = answering(one, two)  # the place is taken, by whichever was first
            refused(refused_one, Code.MALFORMED)
            accepted = two if refused_one is one else one
            accepted.send_run(NOISE.read(0, SIZE))
            tail = bytes(NOISE.read(SIZE - TAG_BYTES, TAG_BYTES))
            assert connection.expect(Received, 30).tails == (tail,)
    assert still_answers(address)


def test_a_verifier_that_dies_while_lanes_run_frees_the_agent(address: str) -> None:
    with session(address) as connection, open_lanes(connection, 0, 0, SIZE, 32) as lanes:
        lanes[1][0].send_run(NOISE.read(0, BLOCK_BYTES))
    assert still_answers(address)


def test_a_lane_that_never_comes_ends_the_wait(address: str) -> None:
    landing = Landing()
    with Connection.open(*address_of(address)) as connection:
        with landing.expecting(TOKEN, 2):
            assert landing.take(Lane(VERSION, TOKEN, 1), connection)
            with pytest.raises(LateError, match="Not every lane"):
                landing.wait(0.05)
        assert not landing.take(Lane(VERSION, TOKEN, 0), connection)
        with pytest.raises(FaultError):  # it belonged to the landing, which is over
            connection.send(Done(0))


def test_a_stream_beyond_the_region_is_refused_before_any_lane(address: str) -> None:
    with session(address) as connection, pytest.raises(AgentRefusedError) as caught:
        send_noise(connection, NOISE, (0, 0, 2 * SIZE), limit=10)
    assert caught.value.code is Code.NOT_MAPPED


def test_an_agent_that_takes_the_noise_too_slowly_is_late() -> None:
    """It accepts the lane and reads nothing: the verifier gives up at its own limit."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with Connection(peer) as connection, listener:
            connection.receive(10)
            connection.send(Done(0))
            lane, _ = listener.accept()
            with lane:
                for _ in range(20):  # a little, so that no single call has to wait long
                    if not lane.recv(1 << 16):
                        break
                    time.sleep(0.1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with (
        Connection.open(*listener.getsockname()[:2]) as connection,
        pytest.raises((LateError, FaultError)),
    ):
        send_noise(connection, NOISE, (0, 0, 64 * MIB), limit=0.5)
    thread.join(10)


def test_strangers_beyond_the_limit_are_turned_away_and_the_others_served(address: str) -> None:
    idle = [socket.create_connection(address_of(address), 10) for _ in range(80)]
    time.sleep(1)
    gone = len(select.select(idle, [], [], 0)[0])  # closed by the agent: nobody else writes
    for peer in idle:
        peer.close()
    assert gone == 80 - 64
    assert still_answers(address)


def test_a_flood_before_hello_is_malformed(address: str) -> None:
    with socket.create_connection(address_of(address), 10) as peer:
        peer.sendall(b"\xff" * (1 << 16))
        peer.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(100) == encode(Error(Code.MALFORMED))
    assert still_answers(address)
