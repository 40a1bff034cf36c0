"""The chain's blocks and links against a plain reading of the format, and the ways to read its blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from ullage.memory.machine.gather import (
    CHAIN_BLOCK_BYTES,
    gather_by_reading,
    gather_from_views,
    join_reads,
)
from ullage.memory.machine.region import DeviceRegion
from ullage.memory.noise.noise import StreamNoise
from ullage.memory.protocol.chain import ChainLinks, walk
from ullage.memory.protocol.questions import Chain

BLOCK = 256 * 1024


def plain_walk(asked: Chain, memory: bytes) -> bytes:
    """As `docs/formats/memory-protocol.md` says it, with AES and the hash of GCM apart."""
    link = asked.nonce
    for _ in range(asked.steps):
        counter = link[:12] + (2).to_bytes(4, "big")
        stream = Cipher(algorithms.AES(asked.nonce), modes.CTR(counter)).encryptor()
        numbers = stream.update(bytes(8 * asked.width))
        read = b""
        for index in range(asked.width):
            block = int.from_bytes(numbers[8 * index : 8 * index + 8], "little") % asked.blocks
            read += memory[block * 128 : (block + 1) * 128]
        tag = Cipher(algorithms.AES(asked.nonce), modes.GCM(link[:12])).encryptor()
        tag.authenticate_additional_data(read)
        tag.finalize()
        link = tag.tag
    return link


@given(st.binary(min_size=16, max_size=16), st.integers(1, 5), st.integers(1, 40), st.integers(1, 64))
def test_a_walk_is_what_the_format_says(nonce: bytes, steps: int, width: int, blocks: int) -> None:
    memory = np.random.default_rng(7).bytes(64 * CHAIN_BLOCK_BYTES)
    asked = Chain(0, nonce, steps, width, blocks)
    assert walk(asked, gather_from_views([memoryview(memory)], CHAIN_BLOCK_BYTES)) == plain_walk(
        asked, memory
    )


def test_a_golden_walk() -> None:
    memory = bytes(range(256)) * 4 * 16
    found = walk(
        Chain(0, bytes(range(16)), 3, 32, 16), gather_from_views([memoryview(memory)], CHAIN_BLOCK_BYTES)
    )
    assert found.hex() == "f3a1af6577aa909d2b96f2723ac958cf"


def test_each_block_is_as_likely() -> None:
    links = ChainLinks(bytes(16), 100, 250)
    drawn = np.concatenate([links.numbers(number.to_bytes(16, "little")) for number in range(4000)])
    counts = np.bincount(drawn, minlength=100)
    assert len(counts) == 100
    assert abs(counts - 10_000).max() < 6 * 100  # six standard deviations


def parts_of(sizes: Sequence[int]) -> tuple[list[bytes], bytes]:
    """Parts of these sizes, and what of them can be challenged."""
    random = np.random.default_rng(len(sizes))
    parts = [random.bytes(size) for size in sizes]
    return parts, b"".join(part[: len(part) // CHAIN_BLOCK_BYTES * CHAIN_BLOCK_BYTES] for part in parts)


@given(
    st.lists(st.integers(0, 9 * CHAIN_BLOCK_BYTES), min_size=1, max_size=6).filter(
        lambda sizes: max(sizes) >= CHAIN_BLOCK_BYTES
    ),
    st.data(),
)
def test_parts_are_read_as_one(sizes: list[int], data: st.DataObject) -> None:
    parts, joined = parts_of(sizes)
    blocks = len(joined) // CHAIN_BLOCK_BYTES
    numbers = data.draw(st.lists(st.integers(0, blocks - 1), min_size=1, max_size=40))
    reads = [lambda offset, size, part=part: memoryview(part)[offset : offset + size] for part in parts]
    found = np.empty((2, len(numbers), CHAIN_BLOCK_BYTES), np.uint8)
    gather_from_views([memoryview(part) for part in parts], CHAIN_BLOCK_BYTES)(
        np.array(numbers, np.intp), found[0]
    )
    gather_by_reading(join_reads(reads, sizes), CHAIN_BLOCK_BYTES)(np.array(numbers, np.intp), found[1])
    expected = b"".join(joined[n * CHAIN_BLOCK_BYTES : (n + 1) * CHAIN_BLOCK_BYTES] for n in numbers)
    assert [one.tobytes() for one in found] == [expected, expected]


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=40))
def test_noise_is_gathered_as_it_is_read(numbers: list[int]) -> None:
    noise = StreamNoise(bytes(range(32)))
    found = np.empty((2, len(numbers), CHAIN_BLOCK_BYTES), np.uint8)
    noise.gather(np.array(numbers, np.intp), found[0])
    gather_by_reading(noise.read, CHAIN_BLOCK_BYTES)(np.array(numbers, np.intp), found[1])
    assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize("kind", ["reading", "device"])
def test_other_memory_is_read_alike(kind: str) -> None:
    memory = np.random.default_rng(1).bytes(BLOCK)
    gather = gather_by_reading(
        lambda offset, size: memoryview(memory)[offset : offset + size], CHAIN_BLOCK_BYTES
    )
    if kind == "device":
        region = DeviceRegion(BLOCK, "cpu")
        region.commit(0, memoryview(bytearray(memory)))
        gather = region.gatherer(CHAIN_BLOCK_BYTES)
    asked = Chain(0, bytes(16), 20, 32, BLOCK // CHAIN_BLOCK_BYTES)
    assert walk(asked, gather) == walk(asked, gather_from_views([memoryview(memory)], CHAIN_BLOCK_BYTES))


@given(st.permutations(range(6)), st.integers(0, CHAIN_BLOCK_BYTES - 1))
def test_parts_that_lie_whole_blocks_apart_are_one_array_in_any_order(order: list[int], shift: int) -> None:
    """As large tensors do, one of them shifted by some bytes or none."""
    memory = np.random.default_rng(3).integers(0, 256, 64 * CHAIN_BLOCK_BYTES, np.uint8)
    sizes = [3 + number for number in order]
    parts = [memory[10 * number * CHAIN_BLOCK_BYTES :][: size * 128] for number, size in enumerate(sizes)]
    parts[2] = memory[20 * CHAIN_BLOCK_BYTES + shift :][: len(parts[2])]
    parts = [parts[number] for number in order]
    whole = np.concatenate(parts).reshape(-1, CHAIN_BLOCK_BYTES)
    gather = gather_from_views([part.data for part in parts], CHAIN_BLOCK_BYTES)
    numbers = np.random.default_rng(5).integers(0, len(whole), 64)
    out = np.empty((64, CHAIN_BLOCK_BYTES), np.uint8)
    gather(numbers, out)
    assert (out == whole[numbers]).all()
    gather(np.zeros(64, np.intp), out)
    assert (out == whole[0]).all()
