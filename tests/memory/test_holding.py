"""Residency between two processes: maps that lie are turned away, and ballast follows its budget."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.memory.agents import CALIBRATION, MIB, agent, running
from ullage.errors import IntegrityError
from ullage.memory.agent.ballast import Ballast
from ullage.memory.erasure import greet
from ullage.memory.machine.gather import CHAIN_BLOCK_BYTES
from ullage.memory.machine.segments import Segment, SegmentKind, readable
from ullage.memory.noise.noise import BLOCK_BYTES
from ullage.memory.protocol.chain import WIDTH
from ullage.memory.protocol.messages import (
    Declare,
    Link,
    Segments,
    Stream,
)
from ullage.memory.protocol.questions import Chain
from ullage.memory.protocol.wire import Connection, address_of
from ullage.memory.residency.chain_bound import fixed_times
from ullage.memory.residency.declared import BufferSource, DeclaredState, Source
from ullage.memory.residency.snapshot import fetch
from ullage.memory.residency.verify import ChainRun, HoldPlan, expected_link, judge_chains
from ullage.memory.verifier import Declared, run_hold
from ullage.model.builtin import builtin_path
from ullage.model.identity import identify

PLAN = HoldPlan(steps=400, rounds=3, quorum=1, budget=16 * MIB)


def test_noise_alone_is_held_and_counted() -> None:
    far = CALIBRATION.model_copy(update={"alternative_seconds": 1.0})
    with agent(16) as address:
        held = run_hold(address, PLAN, far, Declared(builtin_path(), 16 * MIB), inputs={}, dump=True)
    assert held.holding.verdict == "pass"
    assert held.holding.counted == {SegmentKind.BALLAST: 16 * MIB}
    assert [(finding.foreign, finding.size) for finding in held.findings] == [(0, 16 * MIB)]
    value = held.claims[0].value
    assert value is not None
    assert 0 < value < 1


def test_a_session_goes_on_until_a_quorum_was_calm() -> None:
    """Any chain in time is enough for a claim; calmer ones make it larger, and are all paid for."""
    far = CALIBRATION.model_copy(update={"alternative_seconds": 1.0, "step_seconds": 5e-5})
    found = []
    with agent(16) as address:
        for calm in (1e-9, 1e3):
            plan = replace(PLAN, rounds=4, calm=calm)
            held = run_hold(address, plan, far, Declared(builtin_path(), 16 * MIB), inputs={}, dump=False)
            found.append(held.holding)
    assert [len(one.chains) for one in found] == [4, 1]
    assert {one.verdict for one in found} == {"pass"}
    best = min(chain.seconds for chain in found[0].chains)
    shortest = fixed_times(found[0].deadline)[0]
    assert (
        found[0].missing_steps < 1.05 * max(best, shortest) / PLAN.steps
    )  # not of the first but of the best


def test_ballast_shrinks_and_grows_under_noise_that_nobody_saw() -> None:
    with agent(16) as address, Connection.open(*address_of(address)) as connection:
        greet(connection)
        ballast = Ballast(connection)
        for blocks in (8, 3, 40, 40, 0, 12):
            ballast.resize(blocks * BLOCK_BYTES)
            segments = connection.ask(Declare(), Segments, 10).segments
            assert sum(segment.size for segment in segments) == blocks * BLOCK_BYTES
            if blocks:
                last = memoryview(bytearray(4096))
                fetch(connection, 128, (blocks - 1) * BLOCK_BYTES, last)
                assert last == ballast.noise.read((blocks - 1) * BLOCK_BYTES, 4096)
        sources: Sequence[Source] = [ballast.noise]
        asked = Chain(255, bytes(range(16)), 100, WIDTH, 12 * BLOCK_BYTES // CHAIN_BLOCK_BYTES)
        answer = connection.ask(asked, Link, 10)
        assert answer.value == expected_link(segments, sources, asked)


@pytest.mark.parametrize("name", ["inflated-weights", "twice-declared"])
def test_maps_that_say_more_than_there_is_are_turned_away(name: str, tmp_path: Path) -> None:
    options = ("--listen", "127.0.0.1:0", "--size-mib", "32", "--folder", str(tmp_path))
    plan = HoldPlan(steps=400, rounds=3, quorum=1, budget=32 * MIB)
    with (
        running("redteam", "memory-agent", name, *options) as (address, _),
        pytest.raises(IntegrityError, match="The agent declares"),
    ):
        run_hold(address, plan, CALIBRATION, Declared(builtin_path(), None), inputs={}, dump=False)


def test_a_stream_whose_end_was_not_read_is_no_erasure(tmp_path: Path) -> None:
    from ullage.memory.erasure import Plan
    from ullage.memory.verifier import run_erasure

    options = ("--listen", "127.0.0.1:0", "--size-mib", "16", "--folder", str(tmp_path))
    with (
        running("redteam", "memory-agent", "unread-tail", *options) as (address, _),
        pytest.raises(IntegrityError, match="last bytes"),
    ):
        run_erasure(address, Plan("stream", 16 * MIB), CALIBRATION, None, {})


def test_a_stream_of_half_a_block_is_refused() -> None:
    with agent(16) as address, Connection.open(*address_of(address)) as connection:
        greet(connection)
        connection.send(Stream(0, 0, 100, 1, bytes(16)))
        with pytest.raises(IntegrityError):
            connection.expect(Segments, 10)


def test_content_is_declared_once_and_in_its_size() -> None:
    model = identify(builtin_path())
    state = DeclaredState(builtin_path(), model)
    weights = next(builtin_path().glob("*.safetensors"))
    size = -(-weights.stat().st_size // 4096) * 4096
    honest = Segment(SegmentKind.WEIGHTS, weights.name, size)
    (content,) = state.contents([honest])
    assert content is not None
    assert 0 < content.counted < size
    assert bytes(content.source.read(0, 8)) == weights.read_bytes()[:8]
    for lie in (
        [honest, honest],
        [Segment(SegmentKind.WEIGHTS, weights.name, size + 4096)],
        [Segment(SegmentKind.WEIGHTS, "config.json", 4096)],
        [Segment(SegmentKind.BALLAST, weights.name, size)],
        [Segment(SegmentKind.BALLAST, "ballast", 4096)],
        [Segment(SegmentKind.OTHER, "scratch", 4096)],
    ):
        with pytest.raises(IntegrityError):
            state.contents(lie)


def test_what_cannot_be_read_comes_last() -> None:
    noise, other = Segment(SegmentKind.BALLAST, "ballast", 4096), Segment(SegmentKind.OTHER, "copies", 7)
    assert readable([noise, other]) == (noise,)
    assert readable([other]) == ()
    with pytest.raises(IntegrityError, match="cannot be read"):
        readable([other, noise])


def test_what_two_files_hold_alike_counts_once(tmp_path: Path) -> None:
    folder = shutil.copytree(builtin_path(), tmp_path / "model")
    weights = next(folder.glob("*.safetensors"))
    shutil.copyfile(weights, folder / f"again-{weights.name}")
    state = DeclaredState(folder, identify(folder))
    size = -(-weights.stat().st_size // 4096) * 4096
    twice = [Segment(SegmentKind.WEIGHTS, name, size) for name in (weights.name, f"again-{weights.name}")]
    counted = sorted(content.counted for content in state.contents(twice) if content)
    assert counted[0] == 0 < counted[1] < size


def test_behind_a_buffer_there_are_zeros() -> None:
    source = BufferSource(memoryview(b"abc"))
    assert bytes(source.read(1, 4)) == b"bc\0\0"
    assert bytes(source.read(8, 2)) == b"\0\0"


def chain(seconds: float, *, late: bool = False, correct: bool = True, warning: float = 0.0) -> ChainRun:
    sizes = {SegmentKind.BALLAST: 1 << 30}
    return ChainRun(seconds, late, correct, warning, seconds, sizes, sizes)


def test_the_verdict_follows_the_rule() -> None:
    from ullage.memory.protocol.messages import VERSION, Welcome

    welcome = Welcome(VERSION, 1 << 30, "", (("main memory", 1 << 30),), ())
    plan = HoldPlan(rounds=5, quorum=2, steps=2048)
    quick = CALIBRATION.model_copy(update={"step_seconds": 3e-6})

    def judged(*chains: ChainRun) -> tuple[str, float]:
        deadline = plan.slack * plan.steps * quick.step_seconds
        found = judge_chains(plan, quick, welcome, (), chains, deadline=deadline)
        return found.verdict, found.proven_bytes / (1 << 30)

    verdict, share = judged(chain(0.03), chain(0.03))
    assert verdict == "pass"
    gone = 0.03 / plan.steps / 90e-6
    assert 0.98 < share < 1 - (1 - (1 - gone) ** (1 / WIDTH)) - 0.03 * 0.1e9 / (1 << 30)
    # A second of warning is worth what the other store delivers in it.
    assert judged(chain(0.03), chain(0.03, warning=1.0))[1] == pytest.approx(share - 0.1e9 / (1 << 30))
    # So is the time of the chain itself: its key is known from its first moment on.
    after, until = fixed_times(plan.slack * plan.steps * quick.step_seconds)[50:52]
    part = until - after
    early, later = (judged(*[chain(after + behind * part)] * 2)[1] for behind in (0.2, 0.8))
    assert early - later == pytest.approx(0.6 * part * 0.1e9 / (1 << 30), rel=1e-6)
    assert judged(chain(0.03), chain(9, late=True)) == ("cannot-tell", 0.0)
    assert judged(chain(0.03), chain(0.03, correct=False)) == ("fail", 0.0)
    assert judged() == ("cannot-tell", 0.0)
