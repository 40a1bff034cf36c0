"""The meter without a network: conversations made by hand, and what one changed bit does to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.network import inside
from tests.network.samples import OPTIONS, Conversation, Side, conversation, link, turned, with_checksum
from ullage.network.heartbeat import Heartbeat
from ullage.network.journal import CloseEntry, Entry, ExchangeEntry, OpenEntry, Totals
from ullage.network.meter import Meter

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
RESPONSE = inside.answer(700)
START = 1_700_000_000.0


@dataclass
class Book:
    """A log with one record."""

    sent: int = len(REQUEST)
    received: int = len(RESPONSE)
    output_ids: tuple[int, ...] = tuple(range(700))

    def knows(self, counter: int) -> bool:
        return counter == 0

    def charge(self, counter: int, sent: int, received: int) -> Book | None:
        return self if (counter, sent, received) == (0, self.sent, self.received) else None


def totals(data: bytes) -> Totals:
    return Totals(bytes=len(data), digest="sha256:" + hashlib.sha256(data).hexdigest())


def journal(request: bytes = REQUEST, response: bytes = RESPONSE) -> list[Entry]:
    now = int(START * 1e9)
    return [
        OpenEntry(connection=0, local=(inside.TAP, 40_000), remote=(inside.SERVER, 8000), time=now),
        ExchangeEntry(connection=0, counter=0, received=totals(response), sent=totals(request), time=now),
        CloseEntry(connection=0, time=now),
    ]


def run(frames: list[tuple[bytes, bool]], entries: list[Entry], book: Book | None = None) -> Meter:
    meter = Meter(link(), book or Book())
    for number, (frame, from_server) in enumerate(frames):
        meter.feed(frame, START + number * 0.001, from_server)
    for entry in entries:
        meter.note(entry)
    meter.finish()
    return meter


def test_a_whole_conversation_is_explained() -> None:
    frames = conversation(REQUEST, RESPONSE)
    meter = run(frames, journal())
    tally = meter.tallies.sum
    assert not meter.reasons
    assert tally.total == sum(len(frame) for frame, _ in frames)
    assert tally.record == len(REQUEST) + len(RESPONSE)
    assert tally.pending == 0
    assert 64 <= meter.choice_bits < 200


@given(places=st.lists(st.integers(0, 11), min_size=3, max_size=3).map(sorted))
def test_entries_may_come_before_the_frames_they_name(places: list[int]) -> None:
    """A capture hands frames over in blocks; the tap's journal has its line at once."""
    frames = conversation(REQUEST, RESPONSE)
    meter = Meter(link(), Book())
    left = list(zip(places, journal(), strict=True))
    for number, (frame, from_server) in enumerate(frames):
        while left and left[0][0] <= number:
            meter.note(left.pop(0)[1])
        meter.settle()
        meter.feed(frame, START + number * 0.001, from_server)
    for _, entry in left:
        meter.note(entry)
    meter.finish()
    assert not meter.reasons
    assert meter.tallies.sum.record == len(REQUEST) + len(RESPONSE)


@pytest.mark.parametrize("early", [True, False])
def test_an_entry_names_the_connection_that_comes_and_not_one_that_is_over(early: bool) -> None:
    """Of the same port, which was answered when the tap had given up, so that no journal knows it."""
    old = Conversation(tap=Side(100, 3), server=Side(300, 4))
    old.add(False, flags=0x02, options=OPTIONS, acknowledge=False)
    old.tap.sequence += 1
    old.add(True, flags=0x12, options=OPTIONS, identification=0)
    reset = inside.segment(40_000, 8000, old.tap.sequence, 0, identification=0, flags=0x04, window=0)
    meter = Meter(link(), Book())
    for frame, from_server in [*old.frames, (turned(reset), False)]:
        meter.feed(frame, START - 10, from_server)
    for entry in journal() if early else []:
        meter.note(entry)
    for number, (frame, from_server) in enumerate(conversation(REQUEST, RESPONSE)):
        meter.feed(frame, START + number * 0.001, from_server)
    for entry in [] if early else journal():
        meter.note(entry)
    meter.finish()
    assert meter.reasons == {"connection that the tap does not know": 58 + 58 + 54}
    assert meter.tallies.sum.record == len(REQUEST) + len(RESPONSE)


@pytest.mark.parametrize("ahead", [-5, 3600])
def test_an_entry_whose_connection_was_not_seen_holds_nobody_up(ahead: int) -> None:
    """It began before the meter, or the tap's clock is an hour ahead."""
    early = OpenEntry(
        connection=9,
        local=(inside.TAP, 41_000),
        remote=(inside.SERVER, 8000),
        time=int((START + ahead) * 1e9),
    )
    meter = Meter(link(), Book())
    for entry in [early, *journal()]:
        meter.note(entry)
    for number, (frame, from_server) in enumerate(conversation(REQUEST, RESPONSE)):
        meter.feed(frame, START + number * 0.001, from_server)
        meter.settle()
    assert meter.tallies.sum.pending == 0
    assert bool(meter._early) == (ahead > 0)  # given up as soon as no frame can come
    assert not meter.reasons


def test_a_checksum_of_zero_has_two_spellings() -> None:
    """Linux writes 0xffff for a segment of a socket and 0 for one without: both are honest, and one bit."""
    for sequence in range(1 << 16):
        frames = Conversation(server=Side(sequence, 500))
        frames.handshake()
        frames.say(False, REQUEST)
        if frames.frames[-1][0][50:52] == b"\xff\xff":  # the server's acknowledgement
            break
    place = len(frames.frames) - 1
    frames.say(True, RESPONSE)
    frames.end()
    other = list(frames.frames)
    frame, from_server = other[place]
    other[place] = frame[:50] + b"\0\0" + frame[52:], from_server
    usual = run(conversation(REQUEST, RESPONSE), journal()).choice_bits
    for spelling in (frames.frames, other):
        meter = run(spelling, journal())
        assert not meter.reasons
        assert meter.choice_bits == pytest.approx(usual + 1)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_no_bit_of_any_frame_is_free(data: st.DataObject) -> None:
    """Flip one bit anywhere, checksums left as they were: at least that frame's headers are unexplained."""
    frames = conversation(REQUEST, RESPONSE)
    number = data.draw(st.integers(0, len(frames) - 1))
    frame, from_server = frames[number]
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    frames[number] = (bytes(changed), from_server)
    assert run(frames, journal()).tallies.sum.unexplained >= min(54, len(frame))


@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("offset", [15, 18, 20, 22, 38, 42, 46, 47, 48, 52])
def test_no_header_field_is_free_even_with_right_checksums(number: int, offset: int) -> None:
    """Change a field by one and mend the checksums."""
    frames = conversation(REQUEST, RESPONSE)
    frame, from_server = frames[number]
    changed = bytearray(frame)
    changed[offset] ^= 1
    changed[24:26] = b"\0\0"
    changed[50:52] = b"\0\0"
    total = int.from_bytes(changed[16:18], "big")
    pseudo = bytes(changed[26:34]) + b"\0\6" + (total - 20).to_bytes(2, "big")
    changed[50:52] = inside.checksum(pseudo + bytes(changed[34 : 14 + total])).to_bytes(2, "big")
    mended = with_checksum(bytes(changed))
    frames[number] = (mended, from_server)
    meter = run(frames, journal())
    first_identification = offset == 18 and number in (0, 4)  # free, and counted in `choice_bits`
    if not first_identification:
        assert meter.tallies.sum.unexplained > 0


def test_nothing_of_a_connection_without_a_journal_is_explained() -> None:
    frames = conversation(REQUEST, RESPONSE)
    meter = run(frames, [])
    assert meter.tallies.sum.unexplained == sum(len(frame) for frame, _ in frames)


@pytest.mark.parametrize(
    ("entries", "book"),
    [
        (journal(response=RESPONSE[:-1] + b" "), Book()),  # the tap read something else
        (journal(), Book(received=len(RESPONSE) - 1)),  # the record has another size
        (journal(), Book(output_ids=(1, 2, 3))),  # the record has other tokens
    ],
)
def test_payload_that_differs_from_the_record_is_unexplained(entries: list[Entry], book: Book) -> None:
    assert run(conversation(REQUEST, RESPONSE), entries, book).tallies.sum.unexplained > 500


def test_a_record_explains_its_bytes_once() -> None:
    """The same exchange twice on one connection: the second is too much for the record."""
    made = Conversation()
    made.handshake()
    for _ in range(2):
        made.say(False, REQUEST)
        made.say(True, RESPONSE)
    now = int(START * 1e9)
    second = ExchangeEntry(
        connection=0, counter=0, received=totals(RESPONSE * 2), sent=totals(REQUEST * 2), time=now
    )

    class Once(Book):
        spent = False

        def charge(self, counter: int, sent: int, received: int) -> Book | None:
            if self.spent:
                return None
            self.spent = True
            return self

    meter = run(made.frames, [*journal()[:2], second], Once())
    assert meter.tallies.sum.unexplained == len(REQUEST) + len(RESPONSE)


def stalled(acknowledgements: int, pause: float) -> Meter:
    """A request and its repetition reach a server that could not run; then it acknowledges them so often."""
    made = Conversation()
    made.handshake()
    first = made.tap.sequence
    times = [START, START + 0.001, START + 0.002]
    for wait in (0.01, 0.22):  # the timer of the tap's kernel is 0.2 s at least
        made.tap.sequence = first
        made.add(False, flags=0x18, payload=REQUEST)
        times.append(START + wait)
    made.tap.sequence += len(REQUEST)
    for number in range(acknowledgements):
        made.add(True)
        times.append(START + 0.9 + number * pause)
    meter = Meter(link(), Book())
    for (frame, from_server), time in zip(made.frames, times, strict=True):
        meter.feed(frame, time, from_server)
    return meter


@pytest.mark.parametrize(
    ("acknowledgements", "pause", "needless"),
    [
        (2, 0.0001, 0),  # one for each segment
        (3, 0.0001, 1),
        (2, 1.1, 1),  # says nothing new, and nothing has come for a while
    ],
)
def test_a_stalled_server_may_answer_a_segment_and_its_repetition(
    acknowledgements: int, pause: float, needless: int
) -> None:
    meter = stalled(acknowledgements, pause)
    assert meter.reasons["acknowledgement without a cause"] == 54 * needless


def test_acknowledgements_that_were_not_sent_lapse() -> None:
    """A server that answers every second segment cannot spend the rest in a later exchange."""
    made = Conversation()
    made.handshake()
    for _ in range(8):
        made.say(False, REQUEST, answered=False)
    made.add(True)
    later = len(made.frames)
    made.say(False, REQUEST)
    made.add(True)
    meter = Meter(link(), Book())
    for number, (frame, from_server) in enumerate(made.frames):
        meter.feed(frame, START + number * 0.001 + 2 * (number >= later), from_server)
    assert meter.reasons["acknowledgement without a cause"] == 54


def test_heartbeats_count_once_and_only_from_the_tap() -> None:
    heartbeat = Heartbeat(link())
    meter = Meter(link(), Book(), heartbeat)
    frame = heartbeat.make()
    heartbeat.start(START)
    meter.feed(frame, START + 1, False)
    assert heartbeat.alive
    assert meter.tallies.sum.heartbeat == len(frame)
    meter.feed(frame, START + 2, False)  # replayed
    meter.feed(heartbeat.make(), START + 3, True)  # from the wrong side
    meter.feed(frame[:-1] + b"\1", START + 4, False)
    assert meter.tallies.sum.unexplained == 3 * len(frame)
    heartbeat.gap_until(START + 60)
    assert not heartbeat.alive


def test_arp_is_explained_as_far_as_it_is_needed() -> None:
    def arp(operation: int, target: bytes, *, from_server: bool) -> bytes:
        own, other = (inside.SERVER, inside.TAP) if from_server else (inside.TAP, inside.SERVER)
        mac = inside.SERVER_MAC if from_server else inside.TAP_MAC
        fields = b"\0\1\x08\0\6\4" + operation.to_bytes(2, "big") + mac
        packed = [bytes(map(int, one.split("."))) for one in (own, other)]
        destination = b"\xff" * 6 if operation == 1 else target
        return destination + mac + b"\x08\x06" + fields + packed[0] + target + packed[1]

    meter = Meter(link())
    meter.feed(arp(1, bytes(6), from_server=False), START, False)
    meter.feed(arp(2, inside.TAP_MAC, from_server=True), START + 0.001, True)
    assert meter.tallies.sum.overhead == 84
    meter.feed(arp(2, inside.TAP_MAC, from_server=True), START + 0.002, True)  # nobody asked again
    meter.feed(arp(1, b"secret", from_server=True), START + 0.003, True)
    meter.feed(arp(1, bytes(6), from_server=False), START + 0.5, False)  # too soon
    assert meter.reasons == {"ARP beyond need": 126}


def test_a_source_address_of_the_other_side_does_not_help() -> None:
    """The capture knows on which side a frame came in."""
    frames = conversation(REQUEST, RESPONSE)
    meter = Meter(link(), Book())
    for number, (frame, _) in enumerate(frames):
        meter.feed(frame, START + number, True)
    assert meter.reasons["unknown hardware address"] == sum(
        len(frame) for frame, server in frames if not server
    )


def refused(tap_port: int, sequence: int, *, answered: bool = True) -> list[tuple[bytes, bool]]:
    """A SYN to a port where nobody listens, or where the queue is full and nobody says so."""
    made = Conversation(tap_port, Side(sequence, 7))
    made.add(False, flags=0x02, options=b"\x02\x04\x05\xb4", acknowledge=False)
    if not answered:
        return made.frames
    made.tap.sequence += 1
    reset = inside.segment(8000, tap_port, 0, made.tap.sequence, identification=0, flags=0x14, window=0)
    return [*made.frames, (reset, True)]


def test_connections_that_are_refused_for_days_do_not_end_the_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is down, and a tap that tries again and again from ports that it used before."""
    monkeypatch.setattr("ullage.network.meter.MAX_ACCOUNTS", 20)
    meter = Meter(link(), Book())
    for turn in range(300):
        for frame, from_server in refused(39_000 + turn % 10, 1000 * turn):
            meter.feed(frame, START - 300 + turn, from_server)
    for number, (frame, from_server) in enumerate(conversation(REQUEST, RESPONSE)):
        meter.feed(frame, START + number * 0.001, from_server)
    for entry in journal():
        meter.note(entry)
    meter.finish()
    assert not meter.reasons
    assert meter.tallies.sum.pending == 0
    assert meter.tallies.sum.record == len(REQUEST) + len(RESPONSE)


def test_a_port_is_used_again_after_nobody_answered() -> None:
    """The server's queue was full: its kernel says nothing, and the tap gives up."""
    meter = run([*refused(40_000, 5, answered=False), *conversation(REQUEST, RESPONSE)], journal())
    assert not meter.reasons
    assert meter.tallies.sum.pending == 0


def test_what_no_entry_named_is_let_go_when_the_connection_is_closed() -> None:
    """Bytes after each answer: they are unexplained at once, and not kept until the meter ends."""
    made = Conversation()
    made.handshake()
    made.say(False, REQUEST)
    made.say(True, RESPONSE)
    made.say(True, b"x" * 5000)
    meter = Meter(link(), Book())
    for number, (frame, from_server) in enumerate(made.frames):
        meter.feed(frame, START + number * 0.001, from_server)
    for entry in journal():
        meter.note(entry)
    meter.settle()
    assert meter.reasons == {"payload that no journal entry covers": 5000}
    made.frames.clear()
    made.say(True, b"y" * 700)  # and those that come later
    for number, (frame, from_server) in enumerate(made.frames):
        meter.feed(frame, START + 1 + number * 0.001, from_server)
    assert meter.reasons["payload that no journal entry covers"] == 5700
    meter.finish()
    assert meter.reasons == {"payload that no journal entry covers": 5700}
    assert meter.tallies.sum.pending == 0
