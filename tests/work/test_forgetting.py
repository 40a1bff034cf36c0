"""What the verifier's session forgets, without a prover."""

from __future__ import annotations

from tests.work.helpers import SMALL
from ullage.work.verifier import Session, Terms
from ullage.work.window import Unit


def test_nothing_is_forgotten_while_the_first_job_is_outstanding() -> None:
    session = Session(Terms("127.0.0.1", 9, 1, SMALL))
    session.units = {0: Unit(0, 0, bytes(32), 5), 1: Unit(1, 0, bytes(32), 6)}
    assert session.last_settled(100) == -1
    session.forget(session.last_settled(100))
    assert sorted(session.units) == [0, 1]


def test_what_was_answered_before_the_window_is_forgotten() -> None:
    session = Session(Terms("127.0.0.1", 9, 1, SMALL))
    session.units = {
        0: Unit(0, 0, bytes(32), 5, answered=50),
        1: Unit(1, 0, bytes(32), 6, answered=60),
        2: Unit(2, 0, bytes(32), 60),
    }
    session.forget(session.last_settled(100))
    assert sorted(session.units) == [2]
