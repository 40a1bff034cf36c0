"""The real verifier against provers as processes: honest ones, and ones that break the protocol."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.work.helpers import SMALL, account, agent
from ullage.errors import ExitCode, FaultError, UsageError
from ullage.work import kernels, verifier
from ullage.work.agent import serve_connection
from ullage.work.protocol import Hello, Job, Mode, Open, encode
from ullage.work.prover import Prover
from ullage.work.shape import Shape
from ullage.work.stream import Stream
from ullage.work.verifier import Session, Terms
from ullage.work.window import Outcome, Window

slow = pytest.mark.slow  # an agent for every test; those that are not guard what everything rests on

MODULE = "tests.work.provers"


def findings(windows: list[Window]) -> str:
    return "\n".join(finding for window in windows for finding in window.findings)


@pytest.mark.parametrize("mode", list(Mode))
@slow
def test_an_honest_prover(mode: Mode) -> None:
    with agent(MODULE, "Prover", 2) as address:
        windows = account(address, slots=2, windows=2, mode=mode, answer_seconds=20.0)
    for window in windows:
        assert window.credited > 5
        assert (window.bad, window.missing, window.late) == (0, 0, 0)
        # Products so small take longer to check than to make, and the window says so.
        others = [finding for finding in window.findings if "own checks held" not in finding]
        assert others == []
        assert mode is Mode.FULL or not window.findings
        assert window.openings == (40 if mode is Mode.OPENINGS else 0)


def test_rows_are_checked_in_one_thread_and_the_others_are_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With more threads than cores one row took the verifier 1 s instead of 8 ms, and windows came late.
    found, product = set(), kernels.default_kernel(SMALL.inner)

    def spy(left: kernels.Int8, right: kernels.Int8) -> kernels.Int32:
        found.add(torch.get_num_threads())
        return product(left, right)

    monkeypatch.setattr("ullage.work.run.default_kernel", lambda _: spy)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with agent(MODULE, "Prover") as address:
            (window,) = account(address)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert window.credited > 0
    assert found == {1}


@pytest.mark.parametrize(
    ("name", "what"),
    [("AnswersNan", "C is not A B"), ("DoublesTiles", "do not fit"), ("OmitsTiles", "")],
)
@slow
def test_products_that_are_not(name: str, what: str) -> None:
    with agent(MODULE, name) as address:
        windows = account(address, mode=Mode.FULL, answer_seconds=0.5)
    # A doubled tile ends the connection; the product that it followed was whole.
    assert windows[0].credited <= (1 if name == "DoublesTiles" else 0)
    assert what in findings(windows)
    assert windows[0].missing > 0 or name != "OmitsTiles"


def test_a_changed_commitment_does_not_count() -> None:
    with agent(MODULE, "ChangesCommitment") as address:
        windows = account(address)
    assert "a second root" in findings(windows)
    assert windows[0].bad == 0  # the first root stands, and it was honest


@slow
def test_rows_that_are_never_opened_count_as_not_computed() -> None:
    with agent(MODULE, "Silent") as address:
        (window,) = account(address, answer_seconds=0.3)
    assert window.missing == window.openings > 0
    assert window.accounted() == 0.0
    assert window.outcome is Outcome.CANNOT_TELL


@slow
def test_a_lost_agent_is_named_and_does_not_pause_the_account() -> None:
    with agent(MODULE, "Leaves", 1) as address:
        windows = account(address, windows=3, seconds=0.5, answer_seconds=0.3)
    assert len(windows) == 3
    assert "slot 0 was lost" in findings(windows)
    assert windows[2].accounted() == 0.0


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Garbles", "does not send"),
        ("Invents", "which it does not have"),
        ("Strays", "more than 1000 messages that are no answers"),
        ("Shouts", "A frame of 2061 bytes came; 2048 is the most here"),
    ],
)
@slow
def test_messages_that_no_prover_sends(name: str, what: str) -> None:
    with agent(MODULE, name) as address:
        windows = account(address, answer_seconds=0.3)
    assert what in findings(windows)


@slow
def test_the_provers_clock_is_never_read() -> None:
    with agent(MODULE, "WrongClock") as address:
        (window,) = account(address)
    assert window.credited > 5
    assert (window.late, window.bad, window.missing) == (0, 0, 0)
    assert window.findings == ()


@slow
def test_terms_out_of_range_end_the_connection_and_not_the_agent() -> None:
    terms = bytearray(encode(Hello(Mode.OPENINGS, SMALL, 1, bytes(16))))
    sizes = len(terms) - 16 - 1 - 12
    terms[sizes : sizes + 4] = (1 << 30).to_bytes(4, "big")
    with agent(MODULE, "Prover") as address:
        for wrong in (bytes(terms), b"\xff\xff\xff\xff", encode(Job(0, bytes(32)))):
            with socket.create_connection(address, 30.0) as connection:
                connection.sendall(wrong)
                assert connection.recv(100) == b""
        (window,) = account(address)
    assert window.credited > 0
    assert window.findings == ()


DEAF = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
time.sleep(60)
"""


def test_a_prover_that_does_not_read_holds_nobody_up() -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        connection = socket.create_connection(("127.0.0.1", int(process.stdout.readline())), 30.0)
        connection.settimeout(None)
        stream = Stream(connection, 2048, 0.2)
        began = time.monotonic()
        with pytest.raises(FaultError, match="does not read"):
            stream.send(*[Open(7, 0)] * 500_000)  # 8 MB, more than any buffer between
        assert time.monotonic() - began < 20
        stream.close()
        process.terminate()


@slow
def test_roots_of_nothing_do_not_fill_the_verifiers_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "MAX_UNITS", 50)
    with agent(MODULE, "Floods") as address:
        (window,) = account(address, seconds=1.5, answer_seconds=0.3)
    assert "which nobody computes" in "\n".join(window.findings)
    assert window.credited <= 60  # 50, and a few after each loss
    assert window.accounted() == 0.0


def test_late_units_do_not_count() -> None:
    with agent(MODULE, "Late") as address:
        (window,) = account(address, due=0.1, seconds=1.5, answer_seconds=0.3)
    assert window.late > 0
    assert window.credited == 0


@slow
def test_a_first_unit_longer_than_a_window_does_not_end_the_account() -> None:
    with agent(MODULE, "Late") as address:  # 0.3 s a unit
        windows = account(address, windows=4, seconds=0.2, answer_seconds=0.1)
    assert len(windows) == 4
    assert windows[0].credited == 0


@slow
def test_nobody_listening_is_a_finding_and_an_empty_account() -> None:
    with agent(MODULE, "Prover") as (host, _):
        pass
    (window,) = account((host, 9), seconds=0.5, connect_seconds=0.5)
    assert window.credited == 0
    assert "slot 0 was lost" in "\n".join(window.findings)
    assert window.outcome is not Outcome.FAIL  # nothing was forged; the alarm and the fraction say the rest
    assert window.accounted() == 0.0


def test_products_too_long_to_be_checked_whole_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="K <= 65472"):
        Session(Terms("127.0.0.1", 9, 1, Shape(32, 65_536, 32), Mode.FULL))


@slow
def test_an_agent_ends_with_whichever_of_its_workers_ends_first() -> None:
    command = [sys.executable, "-m", "ullage", "work", "agent", "--listen", "127.0.0.1:0", "--slots", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)  # not the first one
        _, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.FAULT
    assert "A worker of the agent ended" in errors


def test_who_connects_and_says_nothing_does_not_keep_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ullage.work.agent._HELLO_SECONDS", 0.1)
    one, other = tcp_pair()
    with one, other:
        began = time.monotonic()
        serve_connection(Stream(one, 2048), Prover())
        assert 0.1 <= time.monotonic() - began < 10


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = socket.create_connection(listener.getsockname())
        return listener.accept()[0], other


@slow
def test_the_agents_command_prints_its_address() -> None:
    command = [sys.executable, "-m", "ullage", "work", "agent", "--listen", "127.0.0.1:0", "--slots", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on 127.0.0.1:")
        host, _, port = line.strip().rpartition(" ")[2].rpartition(":")
        windows = account((host, int(port)))
        assert windows[0].credited > 0
        process.terminate()
        assert process.wait(10) == 0
