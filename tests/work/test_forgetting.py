"""What the verifier's session forgets, without a prover."""

from __future__ import annotations

from tests.work.helpers import SMALL
from ullage.work.verifier import Session, Terms
from ullage.work.window import Unit


def test_nothing_is_forgotten_while_the_first_job_is_outstanding() -> None:
    session = Session(Terms("127.0.0.1", 9, 1, SMALL))
    session.units = {0: Unit(0, 0, bytes(32), 5), 1: Unit(1, 0, bytes(32), 6)}
    session.forget_settled(100)
    assert sorted(session.units) == [0, 1]


def test_what_was_answered_before_the_window_is_forgotten() -> None:
    session = Session(Terms("127.0.0.1", 9, 1, SMALL))
    session.units = {
        0: Unit(0, 0, bytes(32), 5, answered=50),
        1: Unit(1, 0, bytes(32), 6, answered=60),
        2: Unit(2, 0, bytes(32), 60),
    }
    session.forget_settled(100)
    assert sorted(session.units) == [2]


def test_a_slot_that_hangs_keeps_nobody_elses_jobs() -> None:
    """Otherwise the others would reach what a slot may owe, and be cut off for one that stands still."""
    session = Session(Terms("127.0.0.1", 9, 2, SMALL))
    session.units = {
        0: Unit(0, 0, bytes(32), 5),
        1: Unit(1, 1, bytes(32), 6, answered=50),
        2: Unit(2, 1, bytes(32), 50, answered=70),
        3: Unit(3, 1, bytes(32), 100),
    }
    session.paths = {(1, 0): (), (3, 0): ()}
    session.forget_settled(100)
    assert sorted(session.units) == [0, 3]
    assert session._held == {0: 1, 1: 1}
    assert sorted(session.paths) == [(3, 0)]


def test_a_job_that_was_lost_with_its_slot_is_forgotten() -> None:
    session = Session(Terms("127.0.0.1", 9, 1, SMALL))
    session.units = {0: Unit(0, 0, bytes(32), 5, lost=True), 1: Unit(1, 0, bytes(32), 101)}
    session.forget_settled(100)
    assert sorted(session.units) == [1]
