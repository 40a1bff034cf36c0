"""Whose answer counts: each slot answers for its own jobs, once, and only what it was asked."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.work.helpers import SMALL, WORTH
from ullage.errors import MalformedError
from ullage.work import run
from ullage.work.commitment import commit
from ullage.work.kernels import int8
from ullage.work.openings import Draw
from ullage.work.operands import left_rows, right_columns
from ullage.work.run import Accounting, Plan
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
def stream() -> Iterator[Stream]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Stream(socket.create_connection(listener.getsockname()), 2048)


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
    assert session.take_findings() == ("slot 0 sent a second path (job 0, row 5); the first one stands",)


def test_who_sends_one_path_again_and_again_loses_the_slot(session: Session) -> None:
    """Each costs the verifier time, and a verifier that is late slows the companion."""
    session._take_proof(0, 0, 5, (bytes(32),))
    for _ in range(1000):
        session._take_proof(0, 0, 5, (bytes(32),))
    with pytest.raises(MalformedError, match="more than 1000 messages that are no answers"):
        session._take_proof(0, 0, 5, (bytes(32),))


def test_a_job_is_answered_on_its_own_connection_or_not_at_all(session: Session, stream: Stream) -> None:
    """Who breaks the connection again and again would have any number of jobs at once."""
    session._streams[0] = stream
    session._connections[0] = 1
    session.units[2] = Unit(2, 0, bytes(32), 15, connection=1)
    session._take_root(0, stream, 0, bytes(32), 20)
    assert session.units[0].answered is None
    assert session.take_findings() == ("slot 0 sent a root for job 0, which it does not have",)
    session._take_root(0, stream, 2, bytes(32), 20)
    assert session.units[2].answered == 20


def test_nobody_is_asked_for_what_an_earlier_connection_kept(session: Session, stream: Stream) -> None:
    """The prover's new connection would refuse each, and lose its slot for messages that are no answers."""
    session._asked.clear()
    session._streams[0] = stream
    session._connections[0] = 1
    before = time.monotonic()
    session.ask([(session.units[0], 5), (session.units[1], 6)], 30.0)
    assert time.monotonic() - before < 5  # nor is anything waited for
    assert (session._asked, stream.bytes_sent) == (set(), 0)


def test_a_row_that_is_not_the_products_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    """One unit is honest, one committed to a product with a row altered: every row of both is opened."""
    plan = Plan(Terms("127.0.0.1", 9, 1, SMALL), WORTH)
    accounting = Accounting(plan)
    session, units = accounting._session, []
    products = []
    for number in range(2):
        seed = bytes([number]) * 32
        product = int8(left_rows(seed, SMALL, 0, SMALL.rows), right_columns(seed, SMALL))
        product[3 * number, 0] += number  # of the second unit, row 3
        products.append(commit(product))
        units.append(Unit(number, 0, seed, 10, 20, products[number].root))

    def answer(questions: list[tuple[Unit, int]], seconds: float) -> None:
        session.paths |= {(unit.number, row): products[unit.number].prove(row) for unit, row in questions}

    monkeypatch.setattr(session, "ask", answer)
    everything = tuple(Draw(unit, row) for unit in range(2) for row in (0, 3, 127))
    monkeypatch.setattr(run, "draw_rows", lambda *_: everything)
    findings: list[str] = []
    assert accounting._open_rows(units, findings) == (6, 1, 0)
    assert findings == ["job 1: row 3 is not that of A B (slot 0)"]
