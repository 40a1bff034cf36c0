"""The payload budget's alarm: rare on honest clients whatever they send, sure on leaking ones."""

from __future__ import annotations

import base64
import json
import random
import signal
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import UsageError
from ullage.monitor.budget import DAY_NANOSECONDS, MOST_CLIENTS, Account, Allowance, PayloadBudget
from ullage.monitor.finding import Seen
from ullage.monitor.process import ReaderProcess, UnreadableError
from ullage.monitor.reader import Reader, texts_of
from ullage.monitor.watch import MOST_BYTES, Alarm, Watch


def test_an_honest_client_is_alarmed_no_more_often_than_alpha() -> None:
    allowance = Allowance(honest_bits=16, cap_bits=4096, alpha=0.05)
    draw = random.Random(7)
    alarmed = 0
    for _ in range(300):
        account = Account()
        for _ in range(300):  # a UUID every eighth message: exactly the declared mean
            account.add(128 if draw.random() < 1 / 8 else 0, allowance)
        alarmed += account.alarmed
    assert alarmed <= 0.05 * 300 + 3 * (0.05 * 0.95 * 300) ** 0.5


def test_a_leak_is_alarmed_and_stays_so() -> None:
    allowance = Allowance()
    account = Account()
    messages = 0
    while not account.alarmed:
        account.add(256, allowance)
        messages += 1
    assert messages <= 10
    for _ in range(1000):
        account.add(0, allowance)
    assert account.alarmed


@given(st.lists(st.integers(0, 10**9), max_size=200))
def test_the_capital_is_finite_and_an_empty_day_loses(bits: list[int]) -> None:
    account = Account()
    for one in bits:
        account.add(one, Allowance())
    assert account.bits == sum(bits)
    assert account.log_capital <= len(bits) * 6
    if bits and not any(bits):
        assert account.log_capital < 0


def test_a_day_begins_anew_and_a_clock_that_goes_back_does_not() -> None:
    budget = PayloadBudget(Allowance(day_bits=100))
    budget.charge("a", 100, 5 * DAY_NANOSECONDS)
    assert budget.is_blocked("a", 5 * DAY_NANOSECONDS + 1)
    assert budget.is_blocked("a", 4 * DAY_NANOSECONDS)
    assert not budget.is_blocked("b", 5 * DAY_NANOSECONDS)
    assert not budget.is_blocked("a", 6 * DAY_NANOSECONDS)


def test_clients_beyond_the_limit_share_an_account() -> None:
    budget = PayloadBudget()
    for number in range(MOST_CLIENTS):
        budget.account(str(number), 0)
    assert budget.charge("new", 5, 0).bits == 5
    assert budget.charge("newer", 5, 0).bits == 10


def test_allowances_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError):
        Allowance(honest_bits=0)
    with pytest.raises(UsageError):
        Allowance(alpha=1)
    with pytest.raises(UsageError):
        PayloadBudget().charge("a", -1, 0)


def _response(text: str) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": {"content": text}}]}).encode()


def test_a_watch_alarms_and_blocks_the_client_that_leaks() -> None:
    alarms: list[Alarm] = []
    watch = Watch(PayloadBudget(), alarms.append, blocks=True)
    draw = random.Random(8)
    for _ in range(20):
        key = base64.b64encode(draw.randbytes(32)).decode()
        watch.observe("leaker", _response(f"Your id is {key} today."), 1)
        watch.observe("honest", _response("It was a fine day, and nothing happened."), 1)
    watch.close()
    assert [one.client for one in alarms] == ["leaker"]
    assert watch.scanned == 40
    assert watch.blocked("leaker", 2)
    assert not watch.blocked("honest", 2)
    assert not watch.blocked("leaker", DAY_NANOSECONDS + 1)


def test_a_payload_dealt_over_messages_is_charged() -> None:
    budget = PayloadBudget()
    watch = Watch(budget, lambda _: None, reader=Reader())
    letters = base64.b64encode(b"the launch code is 4711 and the door is green").decode()
    for at in range(0, len(letters), 8):
        watch.observe("leaker", _response(f"part of it is {letters[at : at + 8]} for now"), 1)
    watch.close()
    assert budget.account("leaker", 1).bits > 100


def test_texts_of_streams_and_of_what_is_no_response() -> None:
    events = [
        {"choices": [{"index": index, "delta": {"content": piece}}]} for piece in "ab" for index in (0, 1)
    ]
    stream = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events) + b"data: [DONE]\n\n"
    assert texts_of(stream) == ["ab", "ab"]
    assert texts_of(b'{"choices": [{"index": 0, "text": "whole"}]}') == ["whole"]
    assert texts_of(b'{"choices": 5}') == ['{"choices": 5}']
    assert texts_of(b"\xff raw") == ["\ufffd raw"]
    assert texts_of(stream.replace(b"data: [DONE]", b'data: {"error": {}}') + b'data: {"cho') == ["ab", "ab"]


def test_the_reader_in_its_process_says_what_the_reader_says() -> None:
    process = ReaderProcess()
    letters = base64.b64encode(b"the launch code is 4711 and the door is green").decode()
    answers = [_response(letters), _response(letters[:30]), _response(letters[30:]), b"\xff raw", b"{}"]
    reader = Reader()
    assert [process.read("a", one) for one in answers] == [reader.read("a", one) for one in answers]
    process.close()
    with pytest.raises(UnreadableError):
        process.read("a", answers[0])


def test_a_reader_that_dies_or_stalls_is_started_anew_and_its_answer_is_booked() -> None:
    process = ReaderProcess()
    assert process.read("a", _response("well")) == [Seen(0, ())]
    assert process._child is not None
    process._child.send_signal(signal.SIGSTOP)
    process._patience = 0.2
    with pytest.raises(UnreadableError):
        process.read("a", _response("stalls"))
    process._patience = 30.0
    assert process.read("a", _response("well again")) == [Seen(0, ())]
    budget = PayloadBudget()
    watch = Watch(budget, lambda _: None, reader=process)
    process._child.kill()
    watch.observe("a", _response("dies"), 1)
    watch.observe("a", _response("well again"), 1)
    watch.close()
    process.close()
    assert (watch.scanned, watch.unreadable) == (2, 1)
    assert budget.account("a", 1).bits == budget.allowance.cap_bits


@pytest.mark.parametrize(
    "answer",
    [b"[" * 900_000, b"[[1, {}]]", b"[[1]]", b"5", b'[[1, "a"], [-1, []]]', b"{"],
    ids=lambda answer: answer[:20].decode(),
)
def test_what_a_child_says_that_makes_no_sense_is_unreadable(answer: bytes) -> None:
    """Whoever has taken the child over says what breaks its parent, if that can be."""
    process = ReaderProcess()
    ours, theirs = socket.socketpair()
    process._line = ours
    with theirs:
        teller = threading.Thread(target=theirs.sendall, args=(answer + b"\n",))
        teller.start()
        with pytest.raises(UnreadableError):
            process.read("a", b"well")
        teller.join()


class _Broken:
    """A reader that fails as nobody thought of, over one answer."""

    def read(self, client: str, released: bytes) -> list[Seen]:
        if released == b"bad":
            raise RecursionError
        return [Seen(5000, ("base64/text",))]


def test_a_watch_outlives_a_defect_of_its_reader_and_books_that_answer() -> None:
    watch = Watch(PayloadBudget(Allowance(day_bits=4096)), lambda _: None, blocks=True, reader=_Broken())
    for client, released in (("breaks", b"bad"), ("leaks", b"good")):
        watch.observe(client, released, 1)
    watch.close()
    assert (watch.scanned, watch.unreadable, watch.alarms) == (2, 1, 2)
    assert watch.blocked("breaks", 2)
    assert watch.blocked("leaks", 2)


def test_a_watch_that_can_tell_nobody_goes_on_blocking() -> None:
    """As when standard error is a pipe to a logger that has died."""

    def told(_: Alarm) -> None:
        raise BrokenPipeError

    watch = Watch(PayloadBudget(Allowance(day_bits=4096)), told, blocks=True, reader=_Broken())
    for client in ("one", "other"):
        watch.observe(client, b"good", 1)
    watch.close()
    assert (watch.scanned, watch.unreadable, watch.alarms, watch.bits) == (2, 0, 2, 10_000)
    assert watch.blocked("one", 2)
    assert watch.blocked("other", 2)


class _Slow:
    def __init__(self) -> None:
        self.go = threading.Event()

    def read(self, client: str, released: bytes) -> list[Seen]:
        self.go.wait()
        return [Seen(len(client), ())]


def test_a_watch_that_falls_behind_counts_and_does_not_wait() -> None:
    slow = _Slow()
    watch = Watch(PayloadBudget(), lambda _: None, reader=slow)
    watch.observe("a", bytes(MOST_BYTES + 1), 1)
    assert watch.skipped == 1
    for _ in range(1000):
        watch.observe("a", b"x", 1)
    skipped = watch.skipped
    assert skipped >= 1000 - 256
    slow.go.set()
    watch.close()
    assert watch.scanned == watch.bits == 1001 - skipped
