"""Erasures that chains ask for: honest agents, cheats from processes of their own, and the rule."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory.agents import CALIBRATION, MIB, agent, running
from ullage.errors import IntegrityError, UllageError, UsageError
from ullage.memory import bounds
from ullage.memory.agent.keeper import EVERYTHING
from ullage.memory.erasure import Plan
from ullage.memory.erasure.by_chain import ask_chains, chain_deadline, judge_chain_rounds
from ullage.memory.measure import store_rates
from ullage.memory.noise.noise import StreamNoise
from ullage.memory.protocol.chain import WIDTH, walk
from ullage.memory.protocol.messages import Link
from ullage.memory.protocol.questions import Chain
from ullage.memory.protocol.timing import Timing
from ullage.memory.protocol.wire import Connection
from ullage.memory.residency.chain_bound import TIMES, ChainRule, fixed_times
from ullage.memory.verifier import run_erasure
from ullage.redteam.memory.cheat import Setting
from ullage.redteam.memory.registry import get_cheat

SIZE = 16 * MIB
PLAN = Plan("stream", SIZE, by="chain", rounds=6, steps=100)
# Elsewhere is far, and slow: a claim is close to all that answers, also on a busy machine.
FAR = CALIBRATION.model_copy(update={"alternative_seconds": 1.0, "store_rate": 0.0})
# A machine as they are: a disk of 1 GB/s and 68 us, memory of 17 GB/s and 17 us a step.
USUAL = CALIBRATION.model_copy(
    update={
        "read_rate": 17e9, "store_rate": 1e9, "step_seconds": 17e-6, "alternative_seconds": 68e-6,
        "spot_rate": 1.8e9, "store_reads": 100e3,
    }
)  # fmt: skip


def test_an_honest_agent_passes() -> None:
    with agent(SIZE // MIB) as address:
        found, (claim,) = run_erasure(address, PLAN, FAR, SIZE, {})
    assert (found.verdict, found.by) == ("pass", "chain")
    assert claim.value is not None
    assert 0.8 < claim.value < 1  # above the cheats' truth, so that it would show
    assert claim.value == pytest.approx(1 - found.missing)
    assert any("sooner than" in one for one in claim.assumptions)


@pytest.mark.parametrize("name", ["drop", "concentrated-gap", "disk", "unreached", "shared-seed", "throttle"])
def test_cheats_get_no_claim_above_the_truth(name: str, tmp_path: Path) -> None:
    cheat = get_cheat(name)
    setting = Setting(SIZE, 0.25, tmp_path)
    machine = cheat.machine_bytes(setting) if cheat.machine_bytes else SIZE
    rates = FAR
    if name == "disk":  # its time depends on this machine's disk, so the calibration must
        disk = store_rates(tmp_path, 3)
        rates = CALIBRATION.model_copy(update={"store_rate": disk.rate, "alternative_seconds": disk.seconds})
    arguments = (
        "--listen", "127.0.0.1:0", "--size-mib", "16", "--share", "0.25", "--folder", str(tmp_path),
    )  # fmt: skip
    with running("redteam", "memory-agent", name, *arguments) as (address, _):
        found, (claim, *_) = run_erasure(address, PLAN, rates, machine, {})
    assert claim.value is not None
    assert claim.value <= 1 - cheat.withholds(setting)
    if name in ("drop", "concentrated-gap", "shared-seed", "throttle"):
        assert found.verdict == "fail"
    if name == "unreached":
        assert claim.value > 0  # caught by what it is worth, and by no accident


def test_a_stream_that_was_not_read_to_its_end_is_turned_away(tmp_path: Path) -> None:
    arguments = ("--listen", "127.0.0.1:0", "--size-mib", "16", "--folder", str(tmp_path))
    with (
        running("redteam", "memory-agent", "unread-tail", *arguments) as (address, _),
        pytest.raises(IntegrityError, match="last bytes"),
    ):
        run_erasure(address, PLAN, CALIBRATION, None, {})


def test_an_agent_that_answers_twice_is_turned_away() -> None:
    """Or its second answer would be ready before it was asked."""
    noise, rule = StreamNoise(bytes(32)), ChainRule(4, 3, 3, 1e-6)
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener, Connection(listener.accept()[0]) as agent_side:
            asked = agent_side.receive(10)
            assert isinstance(asked, Chain)
            for _ in range(2):
                agent_side.send(Link(walk(asked, noise.gather)))
            with contextlib.suppress(UllageError):
                agent_side.receive(10)

    thread = threading.Thread(target=answer)
    thread.start()
    with (
        Connection.open(*listener.getsockname()) as connection,
        pytest.raises(IntegrityError, match="unasked"),
    ):
        ask_chains(
            connection, noise, (0, MIB), rule, USUAL, deadline=5.0, progress=lambda *_: time.sleep(0.1)
        )  # fmt: skip
    thread.join(20)


def test_what_proves_more_is_taken() -> None:
    assert Plan("stream").asks_by(USUAL) == "chain"
    assert Plan("rate-gap").asks_by(USUAL) == "spots"
    assert Plan("stream", by="pass").asks_by(USUAL) == "pass"
    no_disk = USUAL.model_copy(update={"store_rate": 0.0, "store_reads": 0.0})
    assert Plan("stream").asks_by(no_disk) == "pass"  # which then leaves nothing at all
    near = USUAL.model_copy(update={"alternative_seconds": 1e-6})
    assert Plan("stream").asks_by(near) == "spots"
    many = near.model_copy(update={"store_reads": 1e7})
    assert Plan("stream").asks_by(many) == "pass"
    assert Plan("stream", space=EVERYTHING).asks_by(USUAL) == "pass"


def test_chains_are_not_for_noise_that_a_seed_gives() -> None:
    with pytest.raises(UsageError, match="rebuilt sooner"):
        Plan("rate-gap", by="chain")
    with pytest.raises(UsageError, match="steps"):
        Plan("stream", steps=0)


RULE = ChainRule(2048, 5, 2, 1e-6)
DEADLINE = chain_deadline(RULE, USUAL, 0.002)
REGION = 16 << 30


def judged(*timings: tuple[float, bool | None]) -> tuple[str, float]:
    rounds = tuple(Timing(seconds, seconds > DEADLINE, correct) for seconds, correct in timings)
    _, missing, verdict, _ = judge_chain_rounds(RULE, USUAL, REGION, rounds, deadline=DEADLINE)
    return verdict, missing


def test_the_verdict_follows_the_rule() -> None:
    verdict, missing = judged((0.04, True), (0.041, True))
    within = next(time for time in fixed_times(DEADLINE) if time >= 0.041)
    gone = bounds.missing_steps(within, 2048, 68e-6)
    met = bounds.missing_share(gone, 2048, 2049, 5, 2, error=0.5e-6 / TIMES)
    least = bounds.missing_blocks(met, WIDTH) + 0.041e9 / REGION
    assert verdict == "pass"
    assert least < missing < 1.05 * least < 0.02
    # Nobody knows which of the two it is about: in the slower one more could be read ahead.
    both = judged((0.0405, True), (0.041, True))[1]
    assert next(time for time in fixed_times(DEADLINE) if time >= 0.0405) == within
    slower_alone = judged((0.041, True), (0.041, True))[1]
    assert both == slower_alone > judged((0.0405, True), (0.0405, True))[1]
    assert judged((0.04, True)) == ("cannot-tell", 1.0)
    assert judged((0.04, True), (9.0, True)) == ("cannot-tell", 1.0)
    assert judged((0.04, True), (0.04, False)) == ("fail", 1.0)
    assert judged((0.04, True), (0.04, True), (60.0, None)) == judged((0.04, True), (0.04, True))
    assert judged() == ("cannot-tell", 1.0)


@given(st.lists(st.floats(0.002, 0.2), min_size=2, max_size=2), st.floats(0.0, 0.2))
def test_slower_chains_never_prove_more(seconds: list[float], more: float) -> None:
    """Of a quorum. (Of more, a slow one that is then no longer counted takes its own time to fetch along.)"""
    here = judged(*[(one, True) for one in seconds])[1]
    assert judged(*[(one + more, True) for one in seconds])[1] >= here - 1e-12
