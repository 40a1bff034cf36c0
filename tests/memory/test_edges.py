"""Where a check that is a little off would look right: exact figures, and agents that cross one edge."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.memory.agents import CALIBRATION, MIB
from tests.memory.test_cache_check import ROWS, SHAPE, fill, recompute, views
from tests.memory.test_holding import chain
from ullage.claims import Claim, Reading, Trust, Window
from ullage.errors import IntegrityError, UllageError
from ullage.memory import bounds
from ullage.memory.calibration import Calibration
from ullage.memory.claims import holding_claims
from ullage.memory.erasure import Plan, erase, greet
from ullage.memory.machine.segments import CacheShape, Segment, SegmentKind
from ullage.memory.noise.butterfly import ButterflyNoise
from ullage.memory.noise.noise import BLOCK_BYTES, Question, SegmentTag
from ullage.memory.protocol import wire
from ullage.memory.protocol.chain import WIDTH
from ullage.memory.protocol.fields import Message
from ullage.memory.protocol.messages import (
    VERSION,
    Bye,
    Commit,
    Committed,
    Declare,
    Done,
    Dump,
    Fill,
    Freeze,
    Hello,
    Link,
    Map,
    Mapped,
    Release,
    Segments,
    Sequences,
    Tags,
    Thaw,
    Tokens,
    Welcome,
)
from ullage.memory.protocol.questions import Ask, Chain, Spots
from ullage.memory.protocol.spots import spot_tags
from ullage.memory.protocol.wire import Connection, LateError
from ullage.memory.residency.cache_check import check_cache
from ullage.memory.residency.chain_bound import TIMES, fixed_times
from ullage.memory.residency.declared import BufferSource, DeclaredState
from ullage.memory.residency.density import PlaneHistogram
from ullage.memory.residency.verify import (
    ChainRun,
    Challenger,
    HoldPlan,
    expected_link,
    hold,
    judge_chains,
)
from ullage.model.builtin import builtin_path
from ullage.model.identity import identify

ERROR = 1e-6


def test_both_rates_count_and_one_more_fetches_more() -> None:
    assert bounds.recoverable_share(30.0, 50.0, 2.0, 1000) == pytest.approx(0.16)


def test_a_tag_is_guessed_with_the_probability_of_mcgrew_and_viega() -> None:
    # One 16-byte block and the block of lengths are l = 2 of them: (l + 1) / 2^128.
    assert bounds.forgery_probability(1, 16) == 3 / 2.0**128
    assert bounds.forgery_probability(4, 17) == 16 / 2.0**128


def test_no_more_than_the_machine_is_erased() -> None:
    assert bounds.erased_fraction(200, 0.0, 100) == 1.0


def test_all_the_time_that_steps_take_is_time_to_fetch_in() -> None:
    assert bounds.missing_steps(1.0, 100, 0.05) == pytest.approx(0.2)
    assert bounds.missing_steps(6.0, 100, 0.05) == 1.0


def test_a_chain_is_a_sample_and_its_share_is_more_than_its_steps() -> None:
    welcome = Welcome(VERSION, 1 << 30, "", (("main memory", 1 << 30),), ())
    plan = HoldPlan(rounds=5, quorum=2, steps=2048)
    found = judge_chains(plan, CALIBRATION, welcome, (), (chain(0.03), chain(0.03)), deadline=0.1)
    met = bounds.missing_share(
        found.missing_steps, plan.steps, plan.steps + 1, 5, 2, error=plan.error / 2 / TIMES
    )
    assert met > 1.1 * found.missing_steps > 0
    assert found.missing == pytest.approx(1 - (1 - met) ** (1 / WIDTH))


@given(st.lists(st.floats(0.001, 0.1), min_size=2, max_size=5))
def test_the_bound_is_at_a_time_that_was_fixed_before_and_that_a_quorum_met(seconds: list[float]) -> None:
    """A prover that chooses its moment gains nothing: the times are few, and each pays for all."""
    welcome = Welcome(VERSION, 1 << 30, "", (("main memory", 1 << 30),), ())
    plan, deadline = HoldPlan(rounds=5, quorum=2, steps=2048), 0.1
    found = judge_chains(plan, CALIBRATION, welcome, (), [chain(one) for one in seconds], deadline=deadline)
    fixed = fixed_times(deadline)
    assert len(fixed) == TIMES
    assert fixed == sorted(fixed)
    assert fixed[-1] == deadline
    met = [time for time in fixed if sum(one <= time for one in seconds) >= plan.quorum]
    shares = [bounds.missing_steps(time, plan.steps, CALIBRATION.alternative_seconds) for time in met]
    assert found.verdict == "pass"
    assert found.missing_steps == pytest.approx(shares[0])


def test_tokens_are_the_provers_word_and_cost_four_bytes_each() -> None:
    tensors, row = fill([[7] * 4]), [7] * 4
    found = check_cache(SHAPE, views(tensors), [row], recompute)
    behind = np.concatenate([one.reshape(-1) for one in recompute(row)[2:]])  # the first layer
    planes = PlaneHistogram(4)
    planes.feed(behind.view(np.uint8))
    assert found.counted == int((planes.bits - found.free_bits * behind.size) / 8 - 4 * len(row)) > 0


def test_other_content_is_not_counted() -> None:
    tensors = fill(ROWS)
    honest = check_cache(SHAPE, views(tensors), ROWS, recompute)
    for head in range(2):
        tensors[4][0, head, :6, :8] += 0.5
    foreign = check_cache(SHAPE, views(tensors), ROWS, recompute)
    assert foreign.outside == 2 * 6 * 8
    assert foreign.counted < honest.counted - 2 * foreign.outside  # what is left is what 0.5 does not change


def test_a_frame_that_has_begun_is_whole_in_time_however_patient_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "FRAME_SECONDS", 0.2)
    one, other = socket.socketpair()
    with Connection(_over_tcp(one, other)) as connection, pytest.raises(LateError):
        connection.receive(20.0)


def _over_tcp(*pair: socket.socket) -> socket.socket:
    """A TCP connection on whose other end half a frame lies."""
    for one in pair:
        one.close()
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    accepted.sendall(b"\0\0\0\x10\x83\0\0")
    _KEPT.append((listener, accepted))
    return peer


_KEPT: list[tuple[socket.socket, socket.socket]] = []


class Agent:
    """An agent over TCP that a test bends: it answers from the memory that it is given."""

    def __init__(self, cache: Sequence[bytes], shape: CacheShape, rows: Sequence[Sequence[int]]) -> None:
        self.cache, self.shape, self.rows = cache, shape, tuple(map(tuple, rows))
        self.machine = 1 << 30
        self.mapped = MIB
        self.thawed = 1
        self.round_ahead = 0
        self.fill: Fill | None = None
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(
            Segment(SegmentKind.KV_CACHE, f"part {n}", len(data)) for n, data in enumerate(self.cache)
        )

    def _serve(self, listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with listener, Connection(peer) as connection:
            try:
                while not isinstance(message := connection.receive(30), Bye):
                    if isinstance(message, Dump):
                        held = memoryview(self.cache[message.space - 128])[message.offset :][: message.size]
                        connection.send_with(Done(len(held)), held)
                    else:
                        connection.send(self.answer(message))
            except UllageError:
                return

    def answer(self, message: Message) -> Message:  # noqa: PLR0911 - one line a message
        match message:
            case Hello():
                return Welcome(VERSION, self.machine, "its word", (("main memory", self.machine),), ())
            case Map() | Release():
                return Mapped(self.mapped if isinstance(message, Map) else 0, locked=True)
            case Fill():
                self.fill = message
                return Done(message.size)
            case Ask():
                return self.tags(message.question)
            case Spots():
                return self.spots(message)
            case Declare() | Freeze():
                return Segments(self.segments)
            case Chain():
                sources = [BufferSource(memoryview(data)) for data in self.cache]
                return Link(expected_link(self.segments, sources, message))
            case Commit():
                return Committed(blake3(b"".join(blake3(data).digest() for data in self.cache)).digest())
            case Sequences():
                return Tokens(self.shape, self.rows)
            case Thaw():
                return Done(self.thawed)
            case _:
                raise AssertionError(message)

    def tags(self, question: Question) -> Tags:
        """Of the noise that was asked for, or those of another round."""
        assert self.fill is not None
        noise = ButterflyNoise(self.fill.seed, self.fill.layers)
        found = []
        for number in range(question.segments):
            tag = SegmentTag(question.key, question.round_number, number)
            blocks = question.segment(number)
            tag.update(noise.read(blocks.start * BLOCK_BYTES, len(blocks) * BLOCK_BYTES))
            found.append(tag.tag())
        return Tags(question.round_number + self.round_ahead, tuple(found))

    def spots(self, asked: Spots) -> Tags:
        """The same of spots."""
        assert self.fill is not None
        noise = ButterflyNoise(self.fill.seed, self.fill.layers)
        tags = spot_tags(asked, range(asked.segments), noise.gather)
        return Tags(asked.round_number + self.round_ahead, tuple(tags))


PAGE_SHAPE = CacheShape(layers=2, slots=1, heads=2, capacity=32, width=16, item_bytes=4)  # 4 KiB a part
ROW = list(range(32))


def page_recompute(row: Sequence[int]) -> list[NDArray[np.float32]]:
    """Keys and values of two layers for a row of 32 tokens, `(heads, S, D)`."""
    return [
        np.random.default_rng(index).normal(size=(2, len(row), 16)).astype(np.float32) for index in range(4)
    ]


def pages() -> list[bytes]:
    return [states.tobytes() for states in page_recompute(ROW)]


PLAN = HoldPlan(steps=50, rounds=2, quorum=1, budget=0)


def challenged(agent: Agent) -> ChainRun | None:
    """One chain over what the agent holds."""
    folder = builtin_path()
    declared = DeclaredState(folder, identify(folder), page_recompute)
    with Connection.open(*agent.address) as connection:
        welcome = greet(connection)
        challenger = Challenger(connection, welcome.machine_bytes, PLAN, CALIBRATION, declared)
        assert challenger.deadline == pytest.approx(
            PLAN.slack * PLAN.steps * CALIBRATION.step_seconds + PLAN.allowance
        )
        challenger.fit_ballast()
        run, _ = challenger.challenge()
        connection.send(Bye())
        return run


def test_a_chain_over_keys_and_values_of_the_model_is_right() -> None:
    run = challenged(Agent(pages(), PAGE_SHAPE, [ROW]))
    assert run is not None
    assert run.correct
    assert run.cache is not None
    assert run.counted == {SegmentKind.KV_CACHE: run.cache.counted}


def test_a_right_chain_over_something_else_is_wrong() -> None:
    """The memory holds what the agent likes and answers the chain truly: it is not what tokens lead to."""
    run = challenged(Agent([bytes(4096)] * 4, PAGE_SHAPE, [ROW]))
    assert run is not None
    assert not run.correct


def test_a_server_that_went_on_by_itself_has_shown_nothing() -> None:
    agent = Agent(pages(), PAGE_SHAPE, [ROW])
    agent.thawed = 0
    assert challenged(agent) is None


def test_more_than_the_machine_has_is_not_challenged() -> None:
    agent = Agent(pages(), PAGE_SHAPE, [ROW])
    agent.machine = 8192
    with pytest.raises(IntegrityError, match="more than its machine has"):
        challenged(agent)


def test_a_wrong_chain_ends_the_session_at_once() -> None:
    folder = builtin_path()
    declared = DeclaredState(folder, identify(folder), page_recompute)
    agent = Agent([bytes(4096)] * 4, PAGE_SHAPE, [ROW])
    with Connection.open(*agent.address) as connection:
        plan = replace(PLAN, rounds=5, quorum=5)
        found = hold(connection, greet(connection), plan, CALIBRATION, declared)
        connection.send(Bye())
    assert (found.verdict, len(found.chains)) == ("fail", 1)


def erased(agent: Agent, plan: Plan, rates: Calibration = CALIBRATION) -> tuple[str, float, float]:
    """Verdict, recoverable share, and seconds of the quickest round."""
    with Connection.open(*agent.address) as connection:
        found = erase(connection, greet(connection), plan, rates)
        connection.send(Bye())
    return found.verdict, found.recoverable, min(timing.seconds for timing in found.timings)


@pytest.mark.parametrize("advantage", [1.0, 3.0])
def test_the_share_that_may_be_rebuilt_is_that_of_both_rates_and_the_advantage(advantage: float) -> None:
    rates = CALIBRATION.model_copy(update={"rebuild_rate": 1.6e6, "store_rate": 1e5})
    plan = Plan("rate-gap", MIB, layers=8, by="pass", advantage=advantage)
    _, recoverable, seconds = erased(Agent((), PAGE_SHAPE, ()), plan, rates)
    assert recoverable < 1
    assert recoverable == pytest.approx((1e5 * advantage + 1e5) * seconds / MIB)


def test_right_tags_of_another_round_are_wrong() -> None:
    for by in ("pass", "spots"):
        agent = Agent((), PAGE_SHAPE, ())
        agent.round_ahead = 1
        assert erased(agent, Plan("rate-gap", MIB, layers=12, by=by))[0] == "fail"


def test_spots_of_every_round_are_right_and_may_be_rebuilt_at_their_own_cost() -> None:
    rates = CALIBRATION.model_copy(
        update={"rebuild_rate": 1e6, "spot_rate": 1e6, "store_rate": 65536.0 * 20, "store_reads": 30.0}
    )
    plan = Plan("rate-gap", MIB, layers=12, by="spots", rounds=20, quorum=3, advantage=3.0)
    with Connection.open(*Agent((), PAGE_SHAPE, ()).address) as connection:
        found = erase(connection, greet(connection), plan, rates)
        connection.send(Bye())
    assert found.verdict == "pass"
    seconds = sorted(timing.seconds for timing in found.timings)[2]
    within = next(time for time in fixed_times(found.deadline) if time >= seconds)
    spots = within * (3e6 / (128 * 3) / 128 + 110)  # rebuilt, and read: three each time, and in a row
    assert found.recoverable == pytest.approx(spots / 16)


def test_more_than_the_machine_has_is_not_mapped() -> None:
    agent = Agent((), PAGE_SHAPE, ())
    agent.machine, agent.mapped = MIB, 2 * MIB
    with pytest.raises(IntegrityError, match="more memory than it said"):
        erased(agent, Plan("rate-gap", 0, layers=1, by="pass"))


def test_more_than_the_machine_was_declared_to_have_is_not_mapped() -> None:
    """The agent's word is as large as it likes; noise is not made for it."""
    agent = Agent((), PAGE_SHAPE, ())
    agent.mapped = 2 * MIB
    with Connection.open(*agent.address) as connection:
        welcome = greet(connection)
        with pytest.raises(IntegrityError, match="2 MiB, and the machine has 1 MiB"):
            erase(connection, welcome, Plan("rate-gap", 0, layers=1, by="pass"), CALIBRATION, machine=MIB)
    assert agent.fill is None


def test_a_device_maps_no_more_than_it_said() -> None:
    agent = Agent((), PAGE_SHAPE, ())
    with pytest.raises(IntegrityError, match="more memory than it said"):
        erased(agent, Plan("rate-gap", 0, space=1, layers=1))
    assert agent.fill is None


def held(machine: int | None) -> dict[str, Claim]:
    """Claims of a session over 512 MiB of noise and as much key-value memory on a machine of two spaces."""
    spaces = (("main memory", 1 << 30), ("device", 1 << 30))
    welcome = Welcome(VERSION, 1 << 30, "its word", spaces, ())
    plan = HoldPlan(rounds=5, quorum=1, steps=2048)
    sizes = {SegmentKind.BALLAST: 512 * MIB, SegmentKind.KV_CACHE: 512 * MIB}
    counted = {SegmentKind.BALLAST: 512 * MIB, SegmentKind.KV_CACHE: 256 * MIB}
    run = ChainRun(0.03, False, True, 0.1, 0.03, sizes, counted)
    found = judge_chains(plan, CALIBRATION, welcome, (), (run,), deadline=0.03)
    assert 0 < found.missing_bytes < 200 * MIB
    claims = holding_claims(found, machine, Window(start="1", end="2"), {})
    missing = found.missing_bytes / (machine or 2 << 30)
    names = {claim.name: claim for claim in claims}
    whole, ballast = names["memory.resident_fraction"], names["memory.resident_ballast"]
    assert whole.value == pytest.approx(768 * MIB / (machine or 2 << 30) - missing)
    assert ballast.value == pytest.approx(512 * MIB / (machine or 2 << 30) - missing)  # all that is missing
    assert whole.confidence == 1 - plan.error
    return names


def test_residency_on_the_agents_word_is_of_all_its_memory_and_not_covered_for_an_inspector() -> None:
    for claim in held(None).values():
        assert Trust.PROVER_KERNEL in claim.trusts
        assert f"the machine has {2 << 30} bytes: its word" in claim.assumptions
        assert claim.read_as(Reading.INSPECTOR).value is None
    for claim in held(4 << 30).values():
        assert f"the machine has {4 << 30} bytes: declared" in claim.assumptions
        assert claim.read_as(Reading.INSPECTOR).value == claim.value


def test_more_key_value_memory_than_is_computed_again_is_refused_by_name() -> None:
    agent = Agent(pages(), PAGE_SHAPE, [ROW])
    folder = builtin_path()
    declared = DeclaredState(folder, identify(folder), page_recompute)
    with Connection.open(*agent.address) as connection:
        plan = replace(PLAN, cache_limit=4 * 4096 - 1)
        with pytest.raises(IntegrityError, match=r"of key-value memory, and at most .* --cache-mib"):
            hold(connection, greet(connection), plan, CALIBRATION, declared)
        connection.send(Bye())
