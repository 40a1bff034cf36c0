"""The cycle on a real server: requests wait, weights are the declared ones, broken cycles say so."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.memory.agents import CALIBRATION, MIB, running
from tests.model.tiny_model import write_tiny_model
from ullage.errors import IntegrityError
from ullage.memory.cycle import CycleSettings, run_cycle
from ullage.memory.erasure import Plan, greet
from ullage.memory.machine.segments import SegmentKind
from ullage.memory.protocol.messages import (
    Declare,
    Done,
    File,
    Freeze,
    Segments,
    Start,
    Stop,
    Thaw,
)
from ullage.memory.protocol.wire import AgentRefusedError, Connection, address_of
from ullage.memory.residency.verify import HoldPlan
from ullage.memory.verifier import Declared, run_hold
from ullage.model.key_values import key_values
from ullage.model.loading import load_causal_lm

pytestmark = pytest.mark.slow  # starts servers or agents for every test

REGION = 16 * MIB
PLAN = Plan("stream", REGION)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[tuple[str, str]]:
    """(URL of a server, address of the agent in it)."""
    options = (
        "--listen",
        "127.0.0.1:0",
        "--agent",
        "127.0.0.1:0",
        "--agent-machine",
        "host",
        "--agent-limit-mib",
        "32",
    )
    with running("serve", "--model", str(folder), *options) as (url, process):
        assert process.stderr is not None
        found = re.search(r"memory agent at (\S+)", process.stderr.readline())
        assert found
        yield url.removeprefix("on "), found[1]


def ask(url: str, tokens: int = 8) -> httpx.Response:
    body = {
        "prompt": [5, 6, 7],
        "max_tokens": tokens,
        "seed": 11,
        "temperature": 1.0,
        "return_token_ids": True,
    }
    return httpx.post(f"{url}/v1/completions", json=body, timeout=60)


def settings(folder: Path, url: str) -> CycleSettings:
    return CycleSettings(folder, 8 * MIB, url)


def test_no_request_is_lost_and_answers_stay_the_same(server: tuple[str, str], folder: Path) -> None:
    url, agent = server
    before = ask(url).json()["choices"][0]["text"]
    stop = threading.Event()
    seen: list[int] = []
    texts: set[str] = set()

    def traffic() -> None:
        while not stop.is_set():
            answer = ask(url)
            seen.append(answer.status_code)
            texts.add(answer.json()["choices"][0]["text"])

    clients = [threading.Thread(target=traffic) for _ in range(3)]
    for client in clients:
        client.start()
    cycles = [run_cycle(agent, PLAN, CALIBRATION, settings(folder, url)) for _ in range(2)]
    time.sleep(0.2)
    stop.set()
    for client in clients:
        client.join(60)
    assert all(cycle.erasure.verdict == "pass" for cycle in cycles)
    assert len(seen) > 6
    assert set(seen) == {200}
    assert texts == {before}
    assert all(value >= 0 for value in vars(cycles[0].phases).values())
    assert cycles[0].phases.total == pytest.approx((cycles[0].ended - cycles[0].began) / 1e9, abs=0.5)


def test_a_server_declares_its_map_between_any_two_moments_of_its_work(
    server: tuple[str, str], folder: Path
) -> None:
    """Without a freeze: a verifier asks for the map to fit the ballast, while rows come and go."""
    url, agent = server
    run_cycle(agent, PLAN, CALIBRATION, settings(folder, url))
    stop = threading.Event()

    def traffic() -> None:
        while not stop.is_set():
            ask(url, 2)

    clients = [threading.Thread(target=traffic) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        with Connection.open(*address_of(agent)) as connection:
            greet(connection)
            for _ in range(2000):
                assert connection.ask(Declare(), Segments, 10).segments
    finally:
        stop.set()
        for client in clients:
            client.join(60)


def test_weights_and_ballast_are_where_they_are_declared(server: tuple[str, str], folder: Path) -> None:
    url, agent = server
    run_cycle(agent, PLAN, CALIBRATION, settings(folder, url))
    plan = HoldPlan(steps=200, rounds=3, quorum=1, budget=8 * MIB)
    held = run_hold(agent, plan, CALIBRATION, Declared(folder, REGION), inputs={}, dump=True)
    assert all(chain.correct for chain in held.holding.chains)
    assert {SegmentKind.WEIGHTS, SegmentKind.BALLAST} <= {segment.kind for segment in held.holding.segments}
    assert [finding.foreign for finding in held.findings] == [0] * len(held.findings)
    assert sum(held.holding.challenged.values()) == pytest.approx(8 * MIB, abs=MIB)
    assert ask(url).status_code == 200


def test_key_value_memory_is_recomputed_while_requests_wait(server: tuple[str, str], folder: Path) -> None:
    url, agent = server
    run_cycle(agent, PLAN, CALIBRATION, settings(folder, url))
    model = load_causal_lm(folder)
    stop = threading.Event()
    codes: list[int] = []

    def traffic() -> None:
        while not stop.is_set():
            codes.append(ask(url, tokens=60).status_code)

    clients = [threading.Thread(target=traffic) for _ in range(3)]

    def recompute(tokens: Sequence[int]) -> list[NDArray[np.float32]]:
        return key_values(model, tokens)

    plan = HoldPlan(steps=300, rounds=12, quorum=12, budget=8 * MIB)
    declared = Declared(folder, REGION, recompute)
    for client in clients:
        client.start()
    while not codes:  # a busy machine takes its time to begin
        time.sleep(0.05)
    held = run_hold(agent, plan, CALIBRATION, declared, inputs={}, dump=True)
    stop.set()
    for client in clients:
        client.join(60)
    assert set(codes) == {200}
    assert held.holding.verdict == "pass"
    seen = [chain.cache for chain in held.holding.chains if chain.cache and chain.cache.elements]
    assert seen
    assert all(found.outside == 0 for found in seen)
    assert all(0 < found.free_bits < 16 for found in seen)
    sizes = [sum(chain.challenged.values()) for chain in held.holding.chains]
    assert max(sizes) - min(sizes) < MIB  # ballast makes room for key-value memory, and takes it back


def test_weights_in_another_precision_are_declared_and_count_for_nothing(folder: Path) -> None:
    options = ("--listen", "127.0.0.1:0", "--agent", "127.0.0.1:0", "--agent-machine", "host")
    limits = ("--agent-limit-mib", "32", "--dtype", "bfloat16")
    with running("serve", "--model", str(folder), *options, *limits) as (line, process):
        assert process.stderr is not None
        found = re.search(r"memory agent at (\S+)", process.stderr.readline())
        assert found
        run_cycle(found[1], PLAN, CALIBRATION, settings(folder, line.removeprefix("on ")))
        plan = HoldPlan(steps=200, rounds=1, quorum=1, budget=8 * MIB)
        held = run_hold(found[1], plan, CALIBRATION, Declared(folder, REGION), inputs={}, dump=True).holding
    *_, other = held.segments
    weights = sum(one.size for one in held.segments if one.kind is SegmentKind.WEIGHTS)
    assert other.kind is SegmentKind.OTHER
    assert 0.4 < other.size / weights < 0.6  # the files are float32
    assert all(chain.correct for chain in held.chains)
    assert SegmentKind.OTHER not in held.challenged


def test_a_server_thaws_by_itself_and_says_so(server: tuple[str, str], folder: Path) -> None:
    url, agent = server
    run_cycle(agent, PLAN, CALIBRATION, settings(folder, url))
    with Connection.open(*address_of(agent)) as connection:
        greet(connection)
        connection.ask(Freeze(1), Segments, 10)
        began = time.monotonic()
        assert ask(url).status_code == 200
        assert time.monotonic() - began > 0.7
        assert connection.ask(Thaw(), Done, 10).size == 0
        connection.ask(Freeze(30), Segments, 10)
        assert connection.ask(Thaw(), Done, 10).size == 1
        connection.ask(Freeze(30), Segments, 10)
    assert ask(url).status_code == 200  # a verifier that goes away leaves nothing frozen


def test_other_weights_than_declared_are_found(server: tuple[str, str], folder: Path, tmp_path: Path) -> None:
    url, agent = server
    run_cycle(agent, PLAN, CALIBRATION, settings(folder, url))
    other = write_tiny_model(tmp_path / "other")
    weights = other / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-70_000:] = bytes(70_000)
    weights.write_bytes(data)
    plan = HoldPlan(steps=2000, rounds=1, quorum=1)
    held = run_hold(agent, plan, CALIBRATION, Declared(other, REGION), inputs={}, dump=True)
    assert sum(finding.foreign for finding in held.findings) > 0
    assert held.holding.verdict == "fail"
    assert held.claims[0].value == 0


def test_a_verifier_that_dies_midway_leaves_a_server_that_says_so_and_comes_back(
    server: tuple[str, str], folder: Path
) -> None:
    url, agent = server
    with Connection.open(*address_of(agent)) as connection:
        greet(connection)
        connection.ask(Stop(30), Done, 60)
        waiting: list[httpx.Response] = []
        client = threading.Thread(target=lambda: waiting.append(ask(url)))
        client.start()
        time.sleep(0.3)
        assert client.is_alive()  # it waits for the cycle to end
    client.join(30)
    assert waiting[0].status_code >= 500
    assert "erased" in waiting[0].text
    late = ask(url)
    assert late.status_code >= 500
    assert "erased" in late.text
    run_cycle(agent, PLAN, CALIBRATION, settings(folder, url))
    assert ask(url).status_code == 200


def test_a_file_with_another_digest_is_never_served(server: tuple[str, str], folder: Path) -> None:
    url, agent = server
    with Connection.open(*address_of(agent)) as connection:
        greet(connection)
        connection.ask(Stop(30), Done, 60)
        connection.send(File("config.json", 4, bytes(32)))
        connection.send_run(memoryview(b"evil"))
        with pytest.raises(AgentRefusedError, match="digest"):
            connection.expect(Done, 10)
    with Connection.open(*address_of(agent)) as connection:
        greet(connection)
        with pytest.raises((AgentRefusedError, IntegrityError)):
            connection.ask(Start(), Done, 30)
    run_cycle(agent, PLAN, CALIBRATION, settings(folder, url))
    assert ask(url).status_code == 200
