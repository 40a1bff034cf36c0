"""A stream's noise is what the format says, in any pieces; tags do not depend on how they are fed."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.errors import UsageError
from ullage.memory.agent.keeper import Keeper
from ullage.memory.machine.region import DeviceRegion, HostRegion
from ullage.memory.noise.butterfly import ButterflyNoise
from ullage.memory.noise.noise import BLOCK_BYTES, Question, SegmentTag, StreamNoise
from ullage.memory.protocol.expectation import Expectation, draw_questions

SEED = bytes(range(32))


def test_golden_noise() -> None:
    assert hashlib.sha256(StreamNoise(SEED).read(0, BLOCK_BYTES)).hexdigest() == (
        "210c65109195308e0d0d931078dea2c28bcbc60ae1ca73be6f78b5720b241554"
    )


@settings(max_examples=25)
@given(st.integers(0, 5000), st.integers(1, 5000))
def test_noise_is_the_same_in_pieces(first: int, count: int) -> None:
    noise = StreamNoise(SEED)
    whole = noise.read(0, 16 * 10_000)
    assert noise.read(16 * first, 16 * count) == whole[16 * first : 16 * (first + count)]


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(UsageError):
        StreamNoise(b"short")


@pytest.mark.parametrize("mode", ["cells", "stream"])
def test_keeper_and_expectation_agree(mode: str) -> None:
    """The prover's and the verifier's ways to the same tags share nothing but the format."""
    blocks = 70
    keeper = Keeper((blocks * BLOCK_BYTES,), threads=2)
    region = keeper.map(0, 0)
    assert region.size == blocks * BLOCK_BYTES
    questions = draw_questions(blocks, 3)
    if mode == "cells":
        keeper.fill(0, region.size, SEED, 2)
        expected = Expectation(lambda: ButterflyNoise(SEED, 2), questions, 2).run()
    else:
        expected = Expectation(lambda: StreamNoise(SEED), questions, 2).run()
        region.borrow(0, region.size)[:] = StreamNoise(SEED).read(0, region.size)
    assert [keeper.answer(0, question) for question in questions] == expected
    region.borrow(BLOCK_BYTES * max(questions[0].segment(0)), 1)[0] ^= 1
    assert keeper.answer(0, questions[0]) != expected[0]


def test_segments_are_cut_and_numbered() -> None:
    question = Question(4, SEED, 10, 4)
    assert question.segments == 3
    assert [question.segment(number) for number in range(3)] == [range(4), range(4, 8), range(8, 10)]
    first, second = SegmentTag(SEED, 4, 0), SegmentTag(SEED, 4, 1)
    first.update(b"same")
    second.update(b"same")
    assert first.tag() != second.tag()


@pytest.mark.parametrize("kind", ["host", "device"])
def test_regions_hold_and_give_back(kind: str) -> None:
    region = HostRegion(4 * BLOCK_BYTES) if kind == "host" else DeviceRegion(4 * BLOCK_BYTES, "cpu")
    buffer = region.borrow(BLOCK_BYTES, BLOCK_BYTES)
    buffer[:] = b"\x07" * BLOCK_BYTES
    region.commit(BLOCK_BYTES, buffer)
    assert region.read(BLOCK_BYTES, 16) == b"\x07" * 16
    region.keep(2 * BLOCK_BYTES)
    assert region.size == 2 * BLOCK_BYTES
    assert region.read(BLOCK_BYTES, 16) == b"\x07" * 16
    if kind == "host":
        assert region.grow(4 * BLOCK_BYTES)
        assert region.size == 4 * BLOCK_BYTES
        assert not region.grow(5 * BLOCK_BYTES)
    region.close()
    assert region.size == 0


def test_a_device_keeper_answers_like_a_host_keeper() -> None:
    """The interface that a GPU's memory goes through, on torch's CPU backend."""
    size = 8 * BLOCK_BYTES
    keeper = Keeper((size, size), ("cpu",), 2)
    question = draw_questions(8, 1)[0]
    for space in (0, 1):
        keeper.map(space, size)
        keeper.fill(space, size, SEED, 2)
    assert keeper.answer(0, question) == keeper.answer(1, question)
