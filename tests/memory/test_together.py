"""Main memory and a device erased as one: the same protocol, one total, no place to step aside."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory.agents import CALIBRATION
from ullage.memory.agent.agent import Agent
from ullage.memory.agent.inventory import Inventory
from ullage.memory.agent.keeper import EVERYTHING, Keeper, RefusedError
from ullage.memory.erasure import MODES, Mode, Plan
from ullage.memory.machine.region import DeviceRegion, HostRegion
from ullage.memory.machine.together import TogetherRegion
from ullage.memory.noise.noise import BLOCK_BYTES, Question
from ullage.memory.verifier import run_erasure

# Neither is a whole number of the pieces in which regions are read and written.
MAIN, DEVICE = 17 * BLOCK_BYTES, 6 * BLOCK_BYTES


@contextlib.contextmanager
def serving(keeper: Keeper) -> Iterator[str]:
    """An agent of a machine with a device that torch's CPU backend stands for."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen = Inventory(MAIN, "its word", MAIN, (), (("cpu", DEVICE),))
    threading.Thread(target=Agent(keeper, lambda: seen).serve, args=(listener,), daemon=True).start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


class Dropping(Keeper):
    """Loses one block of the device before it answers."""

    def answer(self, space: int, question: Question) -> list[bytes]:
        region = self.region(1)
        buffer = region.borrow(BLOCK_BYTES, BLOCK_BYTES)
        buffer[:] = bytes(BLOCK_BYTES)
        region.commit(BLOCK_BYTES, buffer)
        return super().answer(space, question)


@pytest.mark.parametrize("mode", MODES)
def test_all_spaces_count_in_one_total(mode: Mode) -> None:
    rates = CALIBRATION.model_copy(update={"store_rate": 0.0})
    with serving(Keeper((MAIN, DEVICE), ("cpu",), 2)) as address:
        together, (claim,) = run_erasure(address, Plan(mode, 0, EVERYTHING, layers=12), rates, None, {})
        alone, (part,) = run_erasure(address, Plan("stream"), rates, None, {})
    assert together.verdict == alone.verdict == "pass"
    assert together.region_bytes == MAIN + DEVICE
    if mode == "stream":
        assert claim.value == pytest.approx(1.0)
    assert part.value == pytest.approx(MAIN / (MAIN + DEVICE))


@pytest.mark.parametrize("mode", MODES)
def test_what_is_missing_on_the_device_fails_the_whole(mode: Mode) -> None:
    with serving(Dropping((MAIN, DEVICE), ("cpu",), 2)) as address:
        found, (claim,) = run_erasure(address, Plan(mode, 0, EVERYTHING, layers=12), CALIBRATION, None, {})
    assert found.verdict == "fail"
    assert claim.value == pytest.approx(0.0)


def test_a_part_of_everything_is_refused_and_release_gives_devices_back() -> None:
    keeper = Keeper((MAIN, DEVICE), ("cpu",), 2)
    with pytest.raises(RefusedError):
        keeper.map(EVERYTHING, BLOCK_BYTES)
    assert keeper.map(EVERYTHING, 0).size == MAIN + DEVICE
    keeper.release(EVERYTHING, MAIN + DEVICE - 5 * BLOCK_BYTES)
    assert (keeper.mapped(0), keeper.mapped(1)) == (MAIN - 5 * BLOCK_BYTES, 0)
    with pytest.raises(RefusedError):
        keeper.region(EVERYTHING)


@given(st.data())
def test_runs_across_the_seams_are_those_of_one_region(data: st.DataObject) -> None:
    size = 3 * BLOCK_BYTES
    together = TogetherRegion(
        [HostRegion(BLOCK_BYTES), DeviceRegion(BLOCK_BYTES, "cpu"), HostRegion(BLOCK_BYTES)]
    )
    plain = bytearray(size)
    for part in range(3):
        together.commit(part * BLOCK_BYTES, memoryview(bytearray(BLOCK_BYTES)))
    for _ in range(3):
        offset = data.draw(st.integers(0, size - 1))
        count = data.draw(st.integers(1, size - offset))
        run = bytes([data.draw(st.integers(1, 255))]) * count
        buffer = together.borrow(offset, count)
        buffer[:] = run
        together.commit(offset, buffer)
        plain[offset : offset + count] = run
    offset = data.draw(st.integers(0, size - 1))
    count = data.draw(st.integers(1, size - offset))
    assert together.read(offset, count) == plain[offset : offset + count]
