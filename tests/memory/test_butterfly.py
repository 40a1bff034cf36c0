"""Noise that a seed gives: what the format says, at any place, and what it costs to drop some of it."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ullage.errors import FaultError, UsageError
from ullage.memory.agent import makers
from ullage.memory.agent.keeper import Keeper
from ullage.memory.agent.makers import MakerProcess, Makers
from ullage.memory.noise.butterfly import (
    DEPTH,
    MAX_LAYERS,
    PIECE_BYTES,
    ROWS,
    ButterflyNoise,
    cost_of_passes,
    cost_of_spots,
    layers_for_passes,
    layers_for_spots,
)
from ullage.memory.noise.noise import BLOCK_BYTES
from ullage.threads import ALONE

SEED = bytes(range(32))


def encrypt(seed: bytes, value: int) -> int:
    encryptor = Cipher(algorithms.AES(seed), modes.ECB()).encryptor()  # noqa: S305 - the format
    return int.from_bytes(encryptor.update(value.to_bytes(16, "little")), "little")


def tweaks(key: bytes, number: int, count: int) -> list[int]:
    """IEEE 1619: E(number) under the key, and each twice the one before in GF(2^128)."""
    found = [encrypt(key, number)]
    while len(found) < count:
        doubled = found[-1] << 1
        found.append(doubled ^ ((1 << 128) | 0x87) if doubled >> 128 else doubled)
    return found


def plain_piece(seed: bytes, layers: int, piece: int) -> bytes:
    """As `docs/formats/memory-protocol.md` says it, one label after the other."""
    count = 131_072 // 16
    other = bytes([1] * 32) if seed[0] == 0 else bytes(32)
    first, second = tweaks(other, 0, count), tweaks(other, 1, count)

    def shifted(label: int, tweak: int) -> int:
        return encrypt(seed, label ^ tweak) ^ tweak ^ label

    labels = [int.from_bytes((piece * count + j).to_bytes(16, "big"), "little") for j in range(count)]
    for layer in range(layers):
        near = [shifted(label, tweak) for label, tweak in zip(labels, first, strict=True)]
        far = [shifted(label, tweak) for label, tweak in zip(labels, second, strict=True)]
        labels = [near[j] ^ far[j ^ (8 << layer % 9)] for j in range(count)]
    return b"".join(label.to_bytes(16, "little") for label in labels)


@pytest.mark.parametrize(
    ("seed", "layers", "piece"), [(SEED, 1, 0), (bytes(32), 2, 7), (b"\1" * 32, 2, 1 << 30), (SEED, 10, 3)]
)
def test_labels_are_those_that_the_format_says(seed: bytes, layers: int, piece: int) -> None:
    found = ButterflyNoise(seed, layers).read(piece * PIECE_BYTES, PIECE_BYTES)
    assert bytes(found) == plain_piece(seed, layers, piece)


def test_golden_noise() -> None:
    assert hashlib.sha256(ButterflyNoise(SEED, 12).read(0, BLOCK_BYTES)).hexdigest() == (
        "17327748254d029f0a4557ca0fed8ffdba4972346ed0d229f20bba343f17ad9e"
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 20_000), st.integers(1, 20_000))
def test_noise_is_the_same_in_pieces(first: int, count: int) -> None:
    noise = ButterflyNoise(SEED, 3)
    whole = noise.read(0, 16 * 40_000)
    assert noise.read(16 * first, 16 * count) == whole[16 * first : 16 * (first + count)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=12), st.sampled_from([32, 128, 512]))
def test_scattered_blocks_are_those_of_their_numbers(numbers: list[int], size: int) -> None:
    noise = ButterflyNoise(SEED, 2)
    found = np.empty((len(numbers), size), np.uint8)
    noise.gather(np.array(numbers, np.intp), found)
    assert found.tobytes() == b"".join(noise.read(size * number, size) for number in numbers)


def test_wrong_parameters_are_refused() -> None:
    for seed, layers in ((b"short", 1), (SEED, 0), (SEED, MAX_LAYERS + 1)):
        with pytest.raises(UsageError):
            ButterflyNoise(seed, layers)
    with pytest.raises(ValueError, match="16 bytes"):
        ButterflyNoise(SEED, 1).read(8, 16)


def evaluated(stored: NDArray[np.bool_], target: int) -> NDArray[np.int64]:
    """How many labels of each layer have to be made for one of the last, where those `stored` are there:
    `(layers + 1, rows)`. All of layer 0 are."""
    layers, rows = stored.shape[0] - 1, stored.shape[1]
    depth = rows.bit_length() - 1
    needed = np.arange(rows) == target
    counts = np.zeros(layers + 1, np.int64)
    for layer in range(layers, 0, -1):
        made = needed & ~stored[layer]
        counts[layer] = made.sum()
        needed = made | made[np.arange(rows) ^ (1 << (layer - 1) % depth)]
    return counts


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.data())
def test_what_is_not_kept_has_to_be_made_again(depth: int, more: int, data: st.DataObject) -> None:
    """The bound of `docs/memory.md`, against whatever a prover keeps of a graph's layers: on average over the
    labels that may be asked for, (n - kept) labels of each layer but the last ones."""
    rows, layers = 1 << depth, depth + more
    kept = data.draw(st.integers(0, rows - 1))
    random = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    weights = random.random(layers) ** data.draw(st.integers(0, 40))  # spread, or most of it in one layer
    places = np.repeat(weights, rows) * random.random(layers * rows)
    stored = np.zeros((layers + 1, rows), bool)
    stored[1:].reshape(-1)[np.argsort(places)[-kept:] if kept else []] = True
    total = sum(evaluated(stored, row)[1 : layers - depth + 1].sum() for row in range(rows))
    assert total >= rows * (rows - kept) * (layers - depth)


def test_dropping_labels_of_the_last_layer_costs_just_that() -> None:
    """The bound is met: who keeps n - 1 labels of the last layer makes almost a whole graph for the other."""
    rows, layers = 16, 10
    stored = np.zeros((layers + 1, rows), bool)
    stored[layers, 1:] = True
    assert [evaluated(stored, row).sum() for row in range(1, rows)] == [0] * (rows - 1)
    assert evaluated(stored, 0)[1 : layers - 3].tolist() == [rows] * (layers - 4)


@pytest.mark.parametrize("cost", [1, 127, 128, 129, 7000])
def test_layers_cost_what_they_have_to(cost: int) -> None:
    layers = layers_for_spots(cost)
    assert cost_of_spots(layers) >= cost > cost_of_spots(layers - 1)
    assert cost_of_passes(layers_for_passes(cost)) >= cost > cost_of_passes(layers_for_passes(cost) - 1)
    assert cost_of_spots(DEPTH) == 0
    assert cost_of_spots(DEPTH + 1) == 2 * ROWS / 8


def test_a_process_makes_the_same_noise() -> None:
    maker, noise = MakerProcess(SEED, 11), ButterflyNoise(SEED, 11)
    try:
        for offset, size in ((0, PIECE_BYTES), (48, 16), (3 * PIECE_BYTES - 32, 5 * PIECE_BYTES), (0, 0)):
            assert maker.read(offset, size) == noise.read(offset, size)
        found = np.empty((2, 128), np.uint8)
        maker.gather(np.array([5, 70_000]), found)
        assert found.tobytes() == bytes(noise.read(640, 128)) + bytes(noise.read(70_000 * 128, 128))
    finally:
        maker.close()


def test_a_process_that_has_ended_is_a_sentence() -> None:
    maker = MakerProcess(SEED, 11)
    maker._process.kill()
    maker._process.wait()
    with pytest.raises(FaultError, match="has ended"):
        maker.read(0, PIECE_BYTES)
    maker.close()


def test_threads_have_makers_of_their_own_as_many_as_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makers, "usable_cores", lambda: 1)
    assert [makers.makers_for(size) for size in (0, (1 << 30) - 1, 1 << 30, 1 << 40)] == [0, 0, 1, 1]
    with Makers(SEED, 10, 1 << 30) as several:
        mine = several.mine()
        assert isinstance(mine, MakerProcess)
        assert several.mine() is mine
        several._local = type(several._local)()  # as another thread would find it
        assert isinstance(several.mine(), ButterflyNoise)
        assert mine.read(0, 4096) == several.mine().read(0, 4096)
    assert mine._process.returncode is not None


def test_processes_fill_a_region_as_threads_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makers, "_LEAST_BYTES", 2 << 20)
    monkeypatch.setattr(makers, "usable_cores", lambda: 2)
    size = 9 << 20
    keeper = Keeper((size,), threads=3)  # the third thread makes its part itself
    region = keeper.map(0, size)
    keeper.fill(0, size, SEED, 10)
    assert region.read(0, size) == ButterflyNoise(SEED, 10).read(0, size)
    started: list[MakerProcess] = []
    monkeypatch.setattr(makers, "MakerProcess", _kept_in(started))
    together = threading.Barrier(3, timeout=60)  # a thread that ended early would take another's turn as well

    def is_wanted() -> bool:
        together.wait()
        return False

    keeper.is_wanted = is_wanted
    with pytest.raises(FaultError, match="went away"):
        keeper.fill(0, size, SEED, 10)
    assert len(started) == 2
    assert all(one._process.returncode is not None for one in started)


def _kept_in(started: list[MakerProcess]) -> Callable[[bytes, int], MakerProcess]:
    def start(seed: bytes, layers: int) -> MakerProcess:
        started.append(MakerProcess(seed, layers))
        return started[-1]

    return start


def test_a_thread_makes_its_part_itself_where_no_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makers, "usable_cores", lambda: 2)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FaultError, match="can be started"):
        MakerProcess(SEED, 10)
    with Makers(SEED, 10, 2 << 30) as several:
        assert isinstance(several.mine(), ButterflyNoise)


def test_no_process_starts_when_the_work_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makers, "usable_cores", lambda: 2)
    with Makers(SEED, 10, 2 << 30) as several:
        pass
    assert isinstance(several.mine(), ButterflyNoise)


def test_a_process_has_one_thread_and_no_key_among_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALONE:
        monkeypatch.setenv(name, "3")
    maker = MakerProcess(SEED, 10)
    try:
        maker.read(0, PIECE_BYTES)  # by now it has loaded all that it uses
        process = Path(f"/proc/{maker._process.pid}")
        assert len(list((process / "task").iterdir())) == 1
        assert all(f"{name}=1".encode() in (process / "environ").read_bytes() for name in ALONE)
        shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        assert SEED not in shown
        assert SEED.hex().encode() not in shown
    finally:
        maker.close()
