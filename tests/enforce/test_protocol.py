"""Every message survives its bytes; nothing else does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.enforce import protocol
from ullage.enforce.protocol import (
    Abort,
    Answer,
    Begin,
    Check,
    Decode,
    ErrorCode,
    Finish,
    Finished,
    FinishReason,
    Hello,
    Refusal,
    ToEnforcer,
    ToTap,
    Welcome,
)
from ullage.errors import MalformedError, UsageError

CHUNK = 8
U16, U32 = st.integers(0, (1 << 16) - 1), st.integers(0, (1 << 32) - 1)
NUMBER = st.integers(0, (1 << 64) - 2)
DIGEST = st.binary(min_size=32, max_size=32)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
FINISH: st.SearchStrategy[FinishReason | None] = st.sampled_from([None, "stop", "length"])
IDS = st.lists(U32, min_size=1, max_size=20).map(tuple)
REAL = st.floats(allow_nan=False, allow_infinity=False)

REQUESTS: st.SearchStrategy[ToEnforcer] = st.one_of(
    st.builds(Hello, DIGEST, TEXT, DIGEST, U16),
    st.builds(
        Begin,
        request=NUMBER,
        seed=st.integers(0, (1 << 63) - 1),
        temperature=REAL,
        top_p=REAL,
        top_k=U32,
        max_tokens=U32,
        prompt_ids=IDS,
        stop=st.lists(TEXT, max_size=4).map(tuple),
    ),
    st.builds(Check, NUMBER, U32, IDS),
    st.builds(Decode, NUMBER, U32, st.integers(1, protocol.MAX_CHUNK)),
    st.builds(Finish, NUMBER),
    st.builds(Abort, NUMBER),
)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    tokens = draw(st.lists(U32, max_size=CHUNK))
    accepted = draw(st.integers(0, len(tokens)))
    return Answer(draw(NUMBER), draw(U32), accepted, tuple(tokens), draw(FINISH))


COUNT = st.integers(1, (1 << 32) - 1)
TO_TAP: st.SearchStrategy[ToTap] = st.one_of(
    st.builds(Welcome, DIGEST, DIGEST, st.integers(1, protocol.MAX_CHUNK), COUNT, COUNT, COUNT, U16),
    answers(),
    st.builds(Finished, NUMBER, U32, FINISH),
    st.builds(Refusal, st.integers(0, (1 << 64) - 1), st.sampled_from(ErrorCode)),
)


def payload(frame: bytes) -> bytes:
    assert protocol.frame_length(frame[:4]) == len(frame) - 4
    return frame[4:]


@given(REQUESTS)
def test_a_message_of_the_taps_survives(message: ToEnforcer) -> None:
    assert protocol.parse_request(payload(protocol.encode_request(message))) == message


@given(TO_TAP)
def test_a_message_of_the_enforcers_survives(message: ToTap) -> None:
    assert protocol.parse_answer(payload(protocol.encode_answer(message, CHUNK))) == message


@given(answers())
def test_the_size_of_an_answer_says_nothing(message: Answer) -> None:
    assert len(protocol.encode_answer(message, CHUNK)) == 22 + 4 * CHUNK


@given(REQUESTS, st.data())
def test_a_cut_or_padded_message_is_refused(message: ToEnforcer, data: st.DataObject) -> None:
    body = payload(protocol.encode_request(message))
    cut = data.draw(st.integers(0, len(body) - 1))
    if cut:
        with pytest.raises(MalformedError):
            protocol.parse_request(body[:cut])
    with pytest.raises(MalformedError):
        protocol.parse_request(body + b"\0")


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=80))
def test_bytes_are_a_message_in_one_spelling_or_none(body: bytes) -> None:
    try:
        message = protocol.parse_request(body)
    except MalformedError:
        return
    assert payload(protocol.encode_request(message)) == body


@pytest.mark.parametrize("length", [0, protocol.MAX_FRAME + 1, (1 << 32) - 1])
def test_a_frame_beyond_the_limits_is_refused(length: int) -> None:
    with pytest.raises(MalformedError):
        protocol.frame_length(length.to_bytes(4, "big"))


def test_values_that_do_not_fit_are_the_callers_fault() -> None:
    for message in (Check(1, -1, (1,)), Check(1, 0, (1 << 32,)), Abort(-1), Check(1, 0, (0,) * (3 << 20))):
        with pytest.raises(UsageError):
            protocol.encode_request(message)


def test_an_answer_that_announces_more_than_it_holds_is_refused() -> None:
    body = payload(protocol.encode_answer(Answer(1, 2, 1, (7, 8), None), CHUNK))
    hidden = body[:-4] + (5).to_bytes(4, "big")  # a token in a slot that is said to be empty
    overfull = body[:13] + (9).to_bytes(2, "big") + body[15:]
    for broken in (hidden, overfull):
        with pytest.raises(MalformedError):
            protocol.parse_answer(broken)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": math.nan}, {"temperature": math.inf}, {"top_p": -math.inf}, {"top_p": math.nan},
        {"seed": 1 << 63}, {"seed": (1 << 64) - 1},
    ],
)  # fmt: skip
def test_a_request_with_what_no_sampler_takes_is_refused(changes: dict[str, float]) -> None:
    begin = Begin(1, 2, 1.0, 1.0, 0, 5, (1, 2, 3))
    assert protocol.parse_request(payload(protocol.encode_request(begin))) == begin
    wrong = replace(begin, **changes)  # type: ignore[arg-type]
    with pytest.raises(MalformedError):
        protocol.parse_request(payload(protocol.encode_request(wrong)))


def test_a_request_has_no_more_stops_than_it_may() -> None:
    begin = Begin(1, 2, 1.0, 1.0, 0, 5, (1, 2, 3), ("x",) * protocol.MAX_STOPS)
    assert protocol.parse_request(payload(protocol.encode_request(begin))) == begin
    more = replace(begin, stop=("x",) * (protocol.MAX_STOPS + 1))
    with pytest.raises(MalformedError):
        protocol.parse_request(payload(protocol.encode_request(more)))
