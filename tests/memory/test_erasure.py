"""Erasure between two processes: honest agents pass, cheats do not, and bad peers get a clear end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.memory.agents import CALIBRATION, MIB, agent, running
from ullage.claims import Claim, Reading
from ullage.errors import FaultError, MalformedError, UllageError
from ullage.memory.erasure import MODES, Mode, Plan, greet
from ullage.memory.erasure.by_pass import judge
from ullage.memory.measure import store_rates
from ullage.memory.noise.noise import Question
from ullage.memory.protocol.messages import (
    VERSION,
    Code,
    Done,
    Error,
    Fill,
    Hello,
    Link,
    Map,
    Mapped,
    Tags,
    Welcome,
    encode,
)
from ullage.memory.protocol.timing import Timing as Round
from ullage.memory.protocol.wire import AgentRefusedError, Connection, address_of
from ullage.memory.verifier import run_erasure

SIZE_MIB = 16
LAYERS = 32


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with agent(SIZE_MIB) as found:
        yield found


def plan(mode: Mode) -> Plan:
    return Plan(mode, SIZE_MIB * MIB, layers=LAYERS, rounds=6, by="pass")


@pytest.mark.parametrize("mode", MODES)
def test_an_honest_agent_passes(address: str, mode: Mode) -> None:
    rates = CALIBRATION.model_copy(update={"rebuild_rate": 5e9})  # a figure also on a busy machine
    found, (claim,) = run_erasure(address, plan(mode), rates, SIZE_MIB * MIB, {"calibration": "sha256:0"})
    assert found.verdict == "pass"
    assert found.region_bytes == SIZE_MIB * MIB
    assert claim.value is not None
    assert 0 < claim.value < 1
    assert claim.value == pytest.approx(1 - found.recoverable)
    assert claim.read_as(Reading.INSPECTOR).value == claim.value
    believed = run_erasure(address, plan(mode), rates, None, {})[1][0]
    assert believed.read_as(Reading.INSPECTOR).value is None
    assert believed.value is not None
    assert believed.value < claim.value


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name", ["drop", "regenerate", "disk", "precomputed", "unreached", "balloon-inspected"]
)
def test_cheats_get_no_claim_above_the_truth(name: str, mode: Mode, tmp_path: Path) -> None:
    from ullage.redteam.memory.cheat import Setting
    from ullage.redteam.memory.registry import get_cheat

    cheat = get_cheat(name)
    setting = Setting(SIZE_MIB * MIB, 0.5, tmp_path)
    machine = cheat.machine_bytes(setting) if cheat.machine_bytes else SIZE_MIB * MIB
    rates = CALIBRATION
    if name == "disk":  # its time depends on this machine's disk, so the calibration must
        rates = CALIBRATION.model_copy(update={"store_rate": store_rates(tmp_path, 3).rate})
    arguments = (
        "--listen",
        "127.0.0.1:0",
        "--size-mib",
        str(SIZE_MIB),
        "--share",
        "0.5",
        "--folder",
        str(tmp_path),
    )
    with running("redteam", "memory-agent", name, *arguments) as (address, _):
        claims: tuple[Claim, ...] = run_erasure(address, plan(mode), rates, machine, {})[1]
    assert claims[0].value is not None
    assert claims[0].value <= 1 - cheat.withholds(setting)


def answers(*seconds: float, correct: bool = True, deadline: float = 1.0) -> tuple[Round, ...]:
    return tuple(Round(value, value > deadline, correct) for value in seconds)


def test_the_verdict_follows_the_rule() -> None:
    def verdict(timings: tuple[Round, ...]) -> tuple[str, float]:
        rule, question = Plan("stream", rounds=4, quorum=2), Question(0, bytes(32), 64, 16)
        _, missing, found, _ = judge(rule, 0.0, 1e6, question, timings)
        return found, missing

    half_a_second = pytest.approx(0.5e6 / (64 << 18))
    found, missing = verdict(answers(0.5, 0.6))
    assert found == "pass"
    assert missing == half_a_second
    # Late and right is no accusation, and still proves what its time allows.
    found, missing = verdict(answers(2.0, 0.5))
    assert found == "cannot-tell"
    assert missing == half_a_second
    assert verdict((*answers(0.5), *answers(0.5, correct=False))) == ("fail", 1.0)
    assert verdict((Round(9.0, late=True, correct=None),)) == ("cannot-tell", 1.0)


def raw(address: str) -> socket.socket:
    return socket.create_connection(address_of(address), 10)


def test_another_version_is_told_so(address: str) -> None:
    with Connection(raw(address)) as connection, pytest.raises(AgentRefusedError) as caught:
        connection.ask(Hello(VERSION + 1), Welcome, 10)
    assert caught.value.code is Code.VERSION


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\0\0", b"\0\0\0\1\377", encode(Done(1))])
def test_nonsense_ends_the_session_and_not_the_agent(address: str, data: bytes) -> None:
    with raw(address) as peer:
        peer.sendall(data)
        peer.settimeout(10)
        answer = peer.recv(100)
        assert answer == encode(Error(Code.MALFORMED))
    with Connection(raw(address)) as connection:
        assert greet(connection).version == VERSION


def test_what_cannot_be_is_refused(address: str) -> None:
    cases = [
        (Map(0, 1 << 50), Mapped, Code.NO_MEMORY),
        (Map(9, 1 << 20), Mapped, Code.IMPOSSIBLE),
        (Fill(0, 1 << 40, bytes(32), 1), Done, Code.NOT_MAPPED),
    ]
    for message, kind, code in cases:
        with Connection(raw(address)) as connection:
            greet(connection)
            with pytest.raises(AgentRefusedError) as caught:
                connection.ask(message, kind, 10)
            assert caught.value.code is code


def test_a_second_verifier_is_told_to_wait_and_a_dead_one_frees_the_agent(address: str) -> None:
    with Connection(raw(address)) as first:
        greet(first)
        with Connection(raw(address)) as second, pytest.raises(AgentRefusedError) as caught:
            greet(second)
        assert caught.value.code is Code.BUSY
        first.ask(Map(0, SIZE_MIB * MIB), Mapped, 30)
        first.send(Fill(0, SIZE_MIB * MIB, bytes(32), 8))  # and goes away without a word
    found = None
    for _ in range(100):
        try:
            found = run_erasure(address, plan("stream"), CALIBRATION, None, {})[0]
            break
        except AgentRefusedError as error:
            if error.code is not Code.BUSY:
                raise
            threading.Event().wait(0.1)
    assert found is not None
    assert found.verdict == "pass"


def scripted(*replies: Callable[[Connection], None]) -> str:
    """An agent that answers message after message by a script, then closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with Connection(peer) as connection, listener:
            for reply in replies:
                try:
                    connection.receive(10)
                    reply(connection)
                except UllageError:
                    return

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def welcome(connection: Connection) -> None:
    connection.send(Welcome(VERSION, 1 << 24, "its word", (("main memory", 1 << 23),), ()))


def flood(connection: Connection) -> None:
    connection.send(Done(1 << 23))
    for _ in range(20):
        connection.send(Tags(0, ()))


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ((lambda c: c.send(Link(bytes(16))),), MalformedError),
        ((welcome, lambda _: None), FaultError),
        ((welcome, lambda c: c.send(Mapped(1 << 40, locked=True))), UllageError),
        ((welcome, lambda c: c.send(Mapped(0, locked=True))), UllageError),
        ((welcome, lambda c: c.send(Mapped(1 << 23, locked=True)), flood), UllageError),
        ((welcome, lambda c: c.send(Mapped(1 << 23, locked=True)), lambda c: c.close()), FaultError),
    ],
    ids=["another-kind", "dies", "too-large", "nothing", "floods", "dies-while-filling"],
)
def test_agents_that_misbehave_end_the_session_with_a_sentence(
    script: tuple[Callable[[Connection], None], ...], error: type[UllageError]
) -> None:
    address = scripted(*script)
    with pytest.raises(error) as caught:
        run_erasure(address, Plan("rate-gap", 1 << 23, layers=10), CALIBRATION, None, {})
    assert str(caught.value).endswith(".")


@pytest.mark.slow
def test_the_commands_from_keys_to_claim(tmp_path: Path) -> None:
    def ullage(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ullage", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    keys, rates = str(tmp_path / "keys"), str(tmp_path / "rates.json")
    assert ullage("keys", "init", keys, "--role", "verifier").returncode == 0
    measured = ullage("memory", "calibrate", "--keys", keys, "--out", rates, "--region-mib", "16")
    assert measured.returncode == 0, measured.stderr
    with agent(SIZE_MIB) as address:
        options = ("--keys", keys, "--calibration", rates, "--size-mib", "16", "--json")
        done = ullage("memory", "erase", address, *options)
        assert done.returncode in (0, 3), done.stderr  # 3: this machine was busy
        record = json.loads(done.stdout)
        assert record["claims"][0]["name"] == "memory.erased_fraction"
        assert all(entry["correct"] for entry in record["rounds"])
        short = ullage("memory", "erase", address, *options, "--at-least", "1")
        assert short.returncode == 3
        if done.returncode == 0 and '"verdict": "pass"' in short.stdout:
            assert "1 was asked for" in short.stderr
        tampered = tmp_path / "rates.json"
        tampered.write_text(tampered.read_text().replace('"payload": "e', '"payload": "f'))
        assert ullage("memory", "erase", address, *options).returncode == 1
    gone = ullage("memory", "erase", "127.0.0.1:1", *options)
    assert gone.returncode in (1, 2)
    assert "Traceback" not in gone.stderr
