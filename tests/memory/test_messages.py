"""Messages survive a round trip, golden bytes stay, and nothing malformed gets through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import MalformedError
from ullage.memory.machine.segments import CacheShape, Segment, SegmentKind
from ullage.memory.noise.noise import Question
from ullage.memory.protocol.fields import Message
from ullage.memory.protocol.messages import (
    Bye,
    Code,
    Commit,
    Committed,
    Declare,
    Done,
    Dump,
    Error,
    File,
    Fill,
    Freeze,
    Hello,
    Lane,
    Link,
    Map,
    Mapped,
    Received,
    Release,
    Segments,
    Sequences,
    Start,
    Stop,
    Stream,
    Tags,
    Thaw,
    Tokens,
    Welcome,
    decode,
    encode,
)
from ullage.memory.protocol.questions import Ask, Chain, Spots

GOLDEN = Path(__file__).parent / "golden" / "messages.json"
SAMPLES: dict[str, Message] = {
    "hello": Hello(),
    "commit": Commit(),
    "committed": Committed(bytes(range(32))),
    "map": Map(0, 1 << 34),
    "stream": Stream(1, 1 << 18, 1 << 20, 2, bytes(range(16))),
    "lane": Lane(4, bytes(range(16)), 1),
    "fill": Fill(0, 1 << 20, bytes(range(32)), 155),
    "question": Ask(0, Question(3, bytes(32), 64, 16)),
    "spots": Spots(0, 3, bytes(range(32)), 262144),
    "chain": Chain(255, bytes(16), 2048, 64, 4096),
    "stop": Stop(60),
    "file": File("model.safetensors", 10, bytes(32)),
    "start": Start(),
    "declare": Declare(),
    "release": Release(0, 0),
    "bye": Bye(),
    "dump": Dump(128, 4096, 4096),
    "welcome": Welcome(1, 1 << 34, "limit", (("main memory", 1 << 33),), (("kernel", 7),)),
    "mapped": Mapped(1 << 20, locked=True),
    "done": Done(5),
    "tags": Tags(2, (bytes(16), bytes(range(16)))),
    "link": Link(bytes(range(16))),
    "segments": Segments((Segment(SegmentKind.WEIGHTS, "w", 3), Segment(SegmentKind.BALLAST, "ballast", 9))),
    "error": Error(Code.BUSY),
    "freeze": Freeze(60),
    "thaw": Thaw(),
    "sequences": Sequences(),
    "received": Received((bytes(range(16)), bytes(16))),
    "tokens": Tokens(CacheShape(2, 4, 2, 256, 32, 4), ((1, 2, 3), (), (70_000,))),
}


def frame_parts(frame: bytes) -> tuple[int, bytes]:
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    return frame[4], frame[5:]


@pytest.mark.parametrize("name", SAMPLES)
def test_round_trip_and_golden_bytes(name: str) -> None:
    frame = encode(SAMPLES[name])
    assert decode(*frame_parts(frame)) == SAMPLES[name]
    assert frame.hex() == json.loads(GOLDEN.read_text())[name]


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_shortening_and_a_byte_more_are_refused(name: str) -> None:
    kind, body = frame_parts(encode(SAMPLES[name]))
    for length in range(len(body)):
        with pytest.raises(MalformedError):
            decode(kind, body[:length])
    with pytest.raises(MalformedError):
        decode(kind, body + b"\0")


@given(st.integers(0, 255), st.binary(max_size=200))
def test_noise_is_a_message_or_malformed(kind: int, body: bytes) -> None:
    try:
        message = decode(kind, body)
    except MalformedError:
        return
    assert decode(*frame_parts(encode(message))) == message


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (1, b"another-magic\0\1"),
        (4, bytes(9) + bytes(32) + bytes(4)),  # kappa 0
        (5, bytes(37) + bytes(4) + (1).to_bytes(4, "big")),  # no region
        (5, bytes(37) + (4).to_bytes(4, "big") + bytes(4)),  # segments of no block
        (5, bytes(37) + (1 << 31).to_bytes(4, "big") + (1).to_bytes(4, "big")),  # too many tags
        (19, bytes(37) + bytes(4)),  # no stratum
        (19, bytes(37) + ((1 << 25) + 1).to_bytes(4, "big")),  # too many
        (
            19,
            b"\0" + b"\xff" * 4 + bytes(32) + (1).to_bytes(4, "big"),
        ),  # a round whose tag has the draws' nonce
        (6, bytes(17) + bytes(4) + (32).to_bytes(2, "big") + (9).to_bytes(8, "big")),  # no step
        (6, bytes(17) + (1).to_bytes(4, "big") + bytes(2) + (9).to_bytes(8, "big")),  # no block a step
        (6, bytes(17) + (1).to_bytes(4, "big") + (257).to_bytes(2, "big") + (9).to_bytes(8, "big")),
        (6, bytes(17) + (1 << 21).to_bytes(4, "big") + (1).to_bytes(2, "big") + (9).to_bytes(8, "big")),
        (6, bytes(17) + (1).to_bytes(4, "big") + (1).to_bytes(2, "big") + bytes(8)),  # over nothing
        (3, bytes(9) + bytes(8) + (1).to_bytes(4, "big") + bytes(16)),  # a stream of nothing
        (3, bytes(9) + (100).to_bytes(8, "big") + (1).to_bytes(4, "big") + bytes(16)),  # of half a block
        (3, bytes(9) + (17 << 18).to_bytes(8, "big") + (1).to_bytes(4, "big") + bytes(16)),  # too many lanes
        (3, bytes(9) + (1 << 18).to_bytes(8, "big") + bytes(4) + bytes(16)),  # lanes of nothing
        (17, b"ullage-memory" + (3).to_bytes(2, "big") + bytes(16) + b"\x10"),  # lane 16
        (137, b"\0"),  # no receipt
        (13, bytes(9) + (5 << 20).to_bytes(4, "big")),
        (14, bytes(4)),  # no time at all
        (14, (61).to_bytes(4, "big")),
        (130, bytes(8) + b"\2"),
        (134, (1).to_bytes(4, "big") + b"\5" + bytes(10)),  # a kind that there is not
        (138, bytes(24) + (1 << 17).to_bytes(4, "big")),  # too many sequences
        (136, b"\0"),
        (200, b""),
    ],
)
def test_negative_fixtures(kind: int, body: bytes) -> None:
    with pytest.raises(MalformedError):
        decode(kind, body)
