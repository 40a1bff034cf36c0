"""Connections frame by frame, at chosen times: what machines that stand still do, and what nobody needs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.network import inside
from tests.network.samples import OPTIONS, Conversation, Frame, link, turned
from ullage.network.frames import Reason
from ullage.network.meter import Meter

START = 1_700_000_000.0
REQUEST, ANSWER, SEGMENT = b"POST / HTTP/1.1\r\n\r\n", b"x" * 200, b"a" * 1460


@dataclass
class Timed:
    """A conversation whose frames have times, in seconds from its start. `server`: who sends."""

    made: Conversation = field(default_factory=Conversation)
    frames: list[tuple[float, Frame]] = field(default_factory=list)

    def add(
        self, at: float, server: bool, *, flags: int = 0x10, payload: bytes = b"", number: int | None = None
    ) -> None:
        self.made.add(server, flags=flags, payload=payload, identification=number)
        self.frames.append((at, self.made.frames[-1]))

    def syn(self, at: float) -> None:
        """The tap's, the first or again."""
        self.made.add(False, flags=0x02, options=OPTIONS, acknowledge=False)
        self.frames.append((at, self.made.frames[-1]))

    def syn_ack(self, at: float) -> None:
        self.made.add(True, flags=0x12, options=OPTIONS, identification=0)
        self.frames.append((at, self.made.frames[-1]))

    def open(self) -> None:
        self.syn(0.0)
        self.made.tap.sequence += 1
        self.syn_ack(0.001)
        self.made.server.sequence += 1
        self.ack(0.002, False)

    def ask(self) -> None:
        self.open()
        self.say(0.01, False, REQUEST)

    def answer(self) -> None:
        """One that the tap has acknowledged."""
        self.ask()
        self.say(0.02, True, ANSWER)
        self.ack(0.021, False)

    def say(self, at: float, server: bool, data: bytes, flags: int = 0x18) -> None:
        self.add(at, server, flags=flags, payload=data)
        (self.made.server if server else self.made.tap).sequence += len(data)

    def repeat(self, at: float, server: bool, data: bytes, back: int | None = None) -> None:
        """Data that end, or begin if `back` says where, before the next byte."""
        side = self.made.server if server else self.made.tap
        away = len(data) if back is None else back
        side.sequence -= away
        self.add(at, server, flags=0x18, payload=data)
        side.sequence += away

    def ack(self, at: float, server: bool, short: int = 0, number: int | None = None) -> None:
        other = self.made.tap if server else self.made.server
        other.sequence -= short
        self.add(at, server, number=number)
        other.sequence += short

    def fin(self, at: float, server: bool, *, again: bool = False) -> None:
        side = self.made.server if server else self.made.tap
        side.sequence -= again
        self.add(at, server, flags=0x11)
        side.sequence += 1

    def meter(self) -> Meter:
        meter = Meter(link())
        for at, (frame, from_server) in self.frames:
            meter.feed(frame, START + at, from_server)
        return meter


def bits(meter: Meter) -> float:
    """What the server could have chosen in the connections that are not over."""
    return sum(one.tcp.server.choice_bits for one in meter._live.values() if one.tcp.server)


def three_copies(one: Timed) -> None:
    one.ask()
    one.repeat(0.21, False, REQUEST)
    one.repeat(0.61, False, REQUEST)
    for number in range(3):
        one.ack(0.9 + number / 10_000, True)


def unread_acknowledgement(one: Timed) -> None:
    """The cap keeps it from the tap, which repeats twice; a server that stands still answers both."""
    one.ask()
    one.ack(0.02, True)
    one.repeat(0.21, False, REQUEST)
    one.repeat(0.61, False, REQUEST)
    one.ack(0.70, True)
    one.ack(0.7001, True)


def late_answer_to_a_repetition(one: Timed) -> None:
    one.ask()
    one.ack(0.02, True)
    one.repeat(0.21, False, REQUEST)
    one.ack(0.55, True)


def server_unaware_of_an_acknowledgement(one: Timed) -> None:
    """Its timer runs before it has read what came."""
    one.answer()
    one.repeat(0.52, True, ANSWER)
    one.ack(0.5205, False)


def server_unaware_of_the_end(one: Timed) -> None:
    one.answer()
    one.fin(0.03, False)
    one.fin(0.031, True)
    one.ack(0.032, False)
    one.fin(0.5, True, again=True)
    one.ack(0.5001, False, number=0)


def two_segments_as_one(one: Timed) -> None:
    """Linux puts small segments together when it repeats them."""
    one.ask()
    one.say(0.02, True, ANSWER)
    one.say(0.021, True, ANSWER)
    one.repeat(0.23, True, ANSWER * 2)
    one.ack(0.24, False)


def both_syns_answered(one: Timed) -> None:
    one.syn(0.0)
    one.syn(1.0)
    one.made.tap.sequence += 1
    one.syn_ack(1.1)
    one.syn_ack(1.1001)
    one.made.server.sequence += 1
    one.ack(1.1002, False)
    one.ack(1.1003, False)
    one.say(1.11, False, REQUEST)


def both_syn_acks_answered(one: Timed) -> None:
    one.syn(0.0)
    one.made.tap.sequence += 1
    one.syn_ack(0.001)
    one.syn_ack(1.01)
    one.made.server.sequence += 1
    one.ack(1.1, False)
    one.ack(1.1001, False)


def new_data_before_an_old_answer(one: Timed) -> None:
    one.ask()
    one.ack(0.02, True)
    one.repeat(0.21, False, REQUEST)
    one.say(1.50, False, b"more")
    one.ack(1.55, True, short=4)
    one.ack(1.5501, True)


def new_data_when_half_is_answered(one: Timed) -> None:
    one.ask()
    one.ack(0.02, True)
    one.repeat(0.21, False, REQUEST)
    one.repeat(0.61, False, REQUEST)
    one.ack(0.62, True)
    one.say(1.70, False, b"more")
    one.ack(1.75, True, short=4)
    one.ack(1.7501, True)


def new_data_before_the_rest_is_answered(one: Timed) -> None:
    """Both sides stood still, the server between two answers."""
    one.ask()
    one.say(0.011, False, b"more")
    one.ack(0.02, True, short=4)
    one.say(1.30, False, b"rest")
    one.ack(1.31, True, short=4)
    one.ack(1.32, True)


def lost_frame(one: Timed) -> None:
    """The cap dropped the first of five: three acknowledgements say so, and it is repeated at once."""
    one.ask()
    for number in range(5):
        one.say(0.02 + number / 1000, True, SEGMENT, flags=0x10)
    for number in range(4):
        one.ack(0.03 + number / 1000, False, short=5 * len(SEGMENT))
    one.repeat(0.04, True, SEGMENT, back=5 * len(SEGMENT))
    one.ack(0.041, False)


def repetitions_of_the_first_of_three(one: Timed) -> None:
    one.open()
    for number in range(3):
        one.say(0.01 + number / 100_000, False, SEGMENT, flags=0x10)
    one.repeat(0.21, False, SEGMENT, back=3 * len(SEGMENT))
    one.repeat(0.62, False, SEGMENT, back=3 * len(SEGMENT))
    one.ack(0.9, True, short=2 * len(SEGMENT))
    for number in range(1, 4):
        one.ack(0.9 + number / 10_000, True)


@pytest.mark.parametrize(
    "happens",
    [
        three_copies,
        unread_acknowledgement,
        late_answer_to_a_repetition,
        server_unaware_of_an_acknowledgement,
        server_unaware_of_the_end,
        two_segments_as_one,
        both_syns_answered,
        both_syn_acks_answered,
        new_data_before_an_old_answer,
        new_data_when_half_is_answered,
        new_data_before_the_rest_is_answered,
        lost_frame,
        repetitions_of_the_first_of_three,
    ],
)
def test_a_machine_that_stood_still_is_explained(happens: Callable[[Timed], None]) -> None:
    made = Timed()
    happens(made)
    assert not made.meter().reasons


@pytest.mark.parametrize(("late", "early"), [(1, 0), (0, 1), (700, -700)])
@pytest.mark.parametrize("acknowledged", [True, False])
def test_repetitions_begin_and_end_with_segments(acknowledged: bool, late: int, early: int) -> None:
    """A free place would be a number that the server chooses, 16 bits of it a segment."""
    made, body = Timed(), random.Random(1).randbytes(40 * 1460)
    made.ask()
    for number in range(40):
        made.say(0.02 + number / 100_000, True, body[1460 * number :][:1460], flags=0x10)
    if acknowledged:
        made.ack(0.03, False)
    for number in range(39):
        at = 1460 * number + late
        made.repeat(0.3 + number / 1000, True, body[at : 1460 * (number + 1) - early], back=len(body) - at)
    assert made.meter().reasons == {Reason.RETRANSMISSION: 39 * (1460 - late - early + 54)}


def test_repetitions_of_segments_are_counted_and_take_their_time() -> None:
    made, body = Timed(), random.Random(1).randbytes(15 * 1460)
    made.ask()
    for number in range(15):
        made.say(0.02 + number / 100_000, True, body[1460 * number :][:1460], flags=0x10)
    made.ack(0.03, False)
    before = bits(made.meter())
    for number in range(15):
        made.repeat(0.3, True, body[1460 * number :][:1460], back=len(body) - 1460 * number)
        made.repeat(0.31, True, body[1460 * number :][:1460], back=len(body) - 1460 * number)
    meter = made.meter()
    assert meter.reasons == {Reason.RETRANSMISSION: 15 * (1460 + 54)}  # the second time
    assert bits(meter) - before >= 15 * (1 + 8)  # of 16 places where to begin, and where to end
    made.repeat(5.0, True, body[:1460], back=len(body))  # long after the tap has said that it has them
    assert made.meter().reasons == {Reason.RETRANSMISSION: 16 * (1460 + 54)}


def ended(one: Timed) -> None:
    one.answer()
    one.fin(0.03, False)
    one.fin(0.031, True)
    one.ack(0.032, False)


def test_an_end_is_not_repeated_again_and_again() -> None:
    made = Timed()
    ended(made)
    for number in range(100):
        made.fin(0.033 + number / 5000, True, again=True)
    assert made.meter().reasons == {Reason.RETRANSMISSION: 100 * 54}


def test_a_handshake_is_not_answered_again_and_again() -> None:
    made = Timed()
    made.open()
    made.made.server.sequence -= 1
    for number in range(100):
        made.syn_ack(0.2 + number / 5)
    explained = 58 * 10  # while the server may not have read the tap's acknowledgement
    assert made.meter().reasons == {Reason.RETRANSMISSION: pytest.approx(100 * 58 - explained, abs=58)}


def test_a_handshake_is_not_answered_when_all_is_over() -> None:
    made = Timed()
    ended(made)
    made.made.tap.sequence -= len(REQUEST) + 1
    made.made.server.sequence -= len(ANSWER) + 2
    made.syn_ack(0.5)
    assert made.meter().reasons == {Reason.HANDSHAKE: 58}


def reset(one: Timed) -> None:
    """By the tap, that has no socket any more."""
    side = one.made.tap
    frame = inside.segment(
        40_000, 8000, side.sequence & 0xFFFF_FFFF, 0, identification=0, flags=0x04, window=0
    )
    one.frames.append((0.1, (turned(frame), False)))


def test_a_handshake_is_not_answered_after_a_reset() -> None:
    made = Timed()
    made.open()
    reset(made)
    made.made.server.sequence -= 1
    made.syn_ack(0.5)
    assert made.meter().reasons == {Reason.AFTER_END: 58}


def test_what_an_end_leaves_open_is_counted() -> None:
    """A socket or none, a bit each; of a reset its window, place, acknowledgement and identification."""
    made = Timed()
    ended(made)
    before = bits(made.meter())
    made.fin(0.3, True, again=True)
    assert bits(made.meter()) - before == pytest.approx(2 + 2 * math.log2(3))  # and which of two segments
    late = Timed()
    late.open()
    before = bits(late.meter())
    late.add(0.1, True, flags=0x14)
    assert bits(late.meter()) - before == 4 + 16  # and its first identification


def test_acknowledgements_are_no_more_than_segments() -> None:
    """However long they were held back, and whatever is repeated meanwhile."""
    made = Timed()
    made.open()
    for number in range(40):
        made.say(0.01 + number / 100_000, False, SEGMENT, flags=0x10)
    made.repeat(0.21, False, SEGMENT, back=40 * len(SEGMENT))
    made.repeat(0.62, False, SEGMENT, back=40 * len(SEGMENT))
    for number in range(60):
        made.ack(1.2 + number / 100_000, True)
    meter = made.meter()
    assert meter.reasons == {Reason.NEEDLESS_ACK: (60 - 42) * 54}
    assert bits(meter) >= 32 + 42
