"""Frames: what was encoded comes back, and everything else is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import MalformedError, UllageError
from ullage.work.protocol import (
    LENGTH,
    Forget,
    Hello,
    Job,
    Message,
    Mode,
    Open,
    Proof,
    Ready,
    Refuse,
    Root,
    Send,
    Tile,
    decode,
    encode,
)
from ullage.work.shape import Shape

numbers = st.integers(0, (1 << 64) - 1)
rows = st.integers(0, (1 << 32) - 1)
hashes = st.binary(min_size=32, max_size=32)
messages = st.one_of(
    st.builds(Job, numbers, hashes),
    st.builds(Root, numbers, hashes),
    st.builds(Open, numbers, rows),
    st.builds(Proof, numbers, rows, st.lists(hashes, max_size=14).map(tuple)),
    st.builds(Send, numbers),
    st.builds(Forget, numbers),
    st.builds(Tile, numbers, rows, st.binary(max_size=200)),
    st.builds(Ready),
    st.builds(Refuse, st.integers(0, 255)),
    st.builds(
        Hello,
        st.sampled_from(Mode),
        st.just(Shape(32, 64, 40)),
        st.integers(1, 8),
        st.binary(min_size=16, max_size=16),
    ),
)


@given(messages)
def test_round_trip(message: Message) -> None:
    data = encode(message)
    assert LENGTH.unpack(data[:4])[0] == len(data) - 4
    assert decode(data[4:]) == message


@given(st.binary(max_size=120))
def test_any_bytes_give_a_message_or_our_error(data: bytes) -> None:
    try:
        message = decode(data)
    except MalformedError:
        return
    assert encode(message)[4:] == data


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00",
        b"\x02" + bytes(39),
        b"\x82" + bytes(41),
        b"\x83" + bytes(12) + b"\x0f" + bytes(15 * 32),
        b"\x81\x01",
        b"\x01" + encode(Hello(Mode.FULL, Shape(32, 64, 32), 1, bytes(16)))[5:].replace(b"work", b"wort"),
        b"\x01" + encode(Hello(Mode.FULL, Shape(32, 64, 32), 1, bytes(16)))[5:-17] + b"\x09" + bytes(16),
    ],
)
def test_misshapen_frames(frame: bytes) -> None:
    with pytest.raises(UllageError):
        decode(frame)


def test_a_job_and_its_root_are_ninety_bytes() -> None:
    assert len(encode(Job(0, bytes(32)))) + len(encode(Root(0, bytes(32)))) == 90


def test_a_shape_out_of_range_is_refused() -> None:
    frame = bytearray(encode(Hello(Mode.FULL, Shape(32, 64, 32), 1, bytes(16)))[4:])
    frame[1 + 11 + 2 : 1 + 11 + 6] = (1 << 30).to_bytes(4, "big")
    with pytest.raises(MalformedError, match="out of range"):
        decode(bytes(frame))
