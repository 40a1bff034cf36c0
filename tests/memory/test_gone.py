"""Work that nobody waits for any more: it ends between two pieces, and the next verifier is served."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.memory.agents import MIB, agent
from ullage.errors import FaultError
from ullage.memory.agent.keeper import Keeper
from ullage.memory.erasure import greet
from ullage.memory.noise.butterfly import MAX_LAYERS
from ullage.memory.noise.noise import Question
from ullage.memory.protocol.messages import Fill, Map, Mapped
from ullage.memory.protocol.questions import Chain, Spots
from ullage.memory.protocol.wire import AgentRefusedError, Connection, address_of
from ullage.redteam.memory.cheat import MissingBlocksKeeper, Setting

HOURS = Fill(0, 64 * MIB, bytes(32), MAX_LAYERS)
"""A trillion bytes of AES: minutes of all cores."""


def test_a_fill_ends_soon_after_its_verifier_has_gone() -> None:
    with agent(64) as address:
        with Connection.open(*address_of(address)) as connection:
            greet(connection)
            connection.ask(Map(0, 64 * MIB), Mapped, 30)
            connection.send(HOURS)
            time.sleep(0.5)
        began = time.monotonic()
        while True:
            with Connection.open(*address_of(address)) as connection:
                try:
                    greet(connection)
                    break
                except AgentRefusedError:  # busy, for a piece or two more
                    assert time.monotonic() < began + 30
        connection.close()


def test_an_answer_that_nobody_wants_ends() -> None:
    keeper = Keeper((16 * MIB,), (), 2)
    keeper.map(0, 16 * MIB)
    keeper.is_wanted = lambda: False
    with pytest.raises(FaultError, match="went away"):
        keeper.answer(0, Question(0, bytes(32), 64, 16))
    with pytest.raises(FaultError, match="went away"):
        keeper.fill(0, 16 * MIB, bytes(32), 1)
    with pytest.raises(FaultError, match="went away"):
        keeper.chain(Chain(0, bytes(16), 1 << 20, 64, 1024))
    keeper.is_wanted = lambda: True
    keeper.fill(0, 16 * MIB, bytes(32), 1)
    assert len(keeper.answer(0, Question(0, bytes(32), 64, 16))) == 4


def test_what_was_left_does_not_go_on_for_the_next_verifier() -> None:
    """The one who began a fill is asked about it, also when another has come meanwhile."""
    keeper = Keeper((16 * MIB,), (), 2)
    keeper.map(0, 16 * MIB)
    gone = threading.Event()
    begun = threading.Event()

    def is_wanted() -> bool:
        begun.set()
        return not gone.is_set()

    keeper.is_wanted = is_wanted
    failed: list[FaultError] = []

    def fill() -> None:
        try:
            keeper.fill(0, 16 * MIB, bytes(32), MAX_LAYERS)
        except FaultError as error:
            failed.append(error)

    filling = threading.Thread(target=fill)
    filling.start()
    assert begun.wait(60)
    keeper.is_wanted = lambda: True
    gone.set()
    filling.join(60)
    assert len(failed) == 1


def test_a_cheat_that_is_too_late_ends_its_rebuilding(tmp_path: Path) -> None:
    """Between two pieces of it: what fits into one is answered."""
    keeper = MissingBlocksKeeper(Setting(32 * MIB, 1.0, tmp_path, None))
    keeper.map(0, 32 * MIB)
    keeper.fill(0, 32 * MIB, bytes(32), 1)
    keeper.is_wanted = lambda: False
    assert len(keeper.spots(Spots(0, 0, bytes(16), 256))) == 1
    with pytest.raises(FaultError, match="went away"):
        keeper.spots(Spots(0, 0, bytes(16), 512))
