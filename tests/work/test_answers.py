"""Whose answer counts: each slot answers for its own jobs, once, and only what it was asked."""

from __future__ import annotations

import socket

import pytest

from tests.work.helpers import SMALL
from ullage.work.stream import Stream
from ullage.work.verifier import Session, Terms
from ullage.work.window import Unit


@pytest.fixture
def session() -> Session:
    """Two slots with a job each; slot 0 was asked for row 5 of its own."""
    session = Session(Terms("127.0.0.1", 9, 2, SMALL))
    session.units = {0: Unit(0, 0, bytes(32), 10), 1: Unit(1, 1, bytes(32), 10)}
    session._asked = {(0, 5)}
    return session


@pytest.fixture
def stream() -> Stream:
    listener = socket.create_server(("127.0.0.1", 0))
    return Stream(socket.create_connection(listener.getsockname()), 2048)


def test_a_slot_does_not_answer_for_another(session: Session, stream: Stream) -> None:
    session._take_root(1, stream, 0, bytes(32), 20)
    assert session.units[0].answered is None
    session._take_root(1, stream, 7, bytes(32), 20)
    assert len(session.take_findings()) == 2
    assert session.answered_in(0, 100) == []


def test_the_first_path_that_was_asked_for_stands(session: Session) -> None:
    first, second = (bytes(32),), (bytes([1]) * 32,)
    session._take_proof(0, 0, 4, first)  # nobody asked for that row
    session._take_proof(1, 0, 5, first)  # nor that slot
    assert session.paths == {}
    assert len(session.take_findings()) == 2
    session._take_proof(0, 0, 5, first)
    session._take_proof(0, 0, 5, second)
    assert session.paths == {(0, 5): first}
