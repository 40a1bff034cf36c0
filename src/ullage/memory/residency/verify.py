"""Proof that declared state is in memory while a server serves: the verifier's side of the chain."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ullage.errors import IntegrityError, UsageError
from ullage.memory.agent.ballast import Ballast
from ullage.memory.agent.keeper import FIRST_SEGMENT, WHOLE_MAP
from ullage.memory.calibration import Calibration
from ullage.memory.machine.gather import CHAIN_BLOCK_BYTES, gather_by_reading, join_reads, whole_blocks
from ullage.memory.machine.segments import Segment, SegmentKind, readable
from ullage.memory.noise.noise import TAG_BYTES
from ullage.memory.protocol.chain import WIDTH, walk
from ullage.memory.protocol.commitment import commitment, segment_digest
from ullage.memory.protocol.messages import (
    Commit,
    Committed,
    Declare,
    Done,
    Freeze,
    Link,
    Segments,
    Sequences,
    Thaw,
    Tokens,
    Welcome,
)
from ullage.memory.protocol.questions import MAX_CHAIN_BLOCKS, MAX_CHAIN_STEPS, Chain
from ullage.memory.protocol.timing import Progress
from ullage.memory.protocol.wire import Connection
from ullage.memory.residency.cache_check import CacheFinding, check_cache, check_shape
from ullage.memory.residency.chain_bound import CALM, SLACK, ChainRule, chain_bound, chain_seconds
from ullage.memory.residency.declared import BufferSource, DeclaredState, Source
from ullage.memory.residency.snapshot import dump_whole

_PATIENCE = 50
_FREEZE_SECONDS = 60


@dataclass(frozen=True)
class HoldPlan:
    """`steps` a chain; `rounds` chains at most, at random times, of which `quorum` must be in time; `slack`
    over the calibrated time of a step, which limits patience and not the claim; a quorum that is within
    `calm` times that time ends the session, since more could hardly show more; `pause` seconds between
    chains on average. `budget` bytes are what weights, key-value memory and ballast fill together: ballast
    follows what the others leave of it. More key-value memory than `cache_limit` bytes is refused: all of it
    is read out over the wire while the server stands still, kept here, and computed again."""

    steps: int = 2048
    rounds: int = 20
    quorum: int = 3
    slack: float = SLACK
    calm: float = CALM
    pause: float = 0.0
    error: float = 1e-6
    allowance: float = 0.002
    budget: int = 0
    cache_limit: int = 4 << 30

    def __post_init__(self) -> None:
        quorum_is_right = 1 <= self.quorum <= self.rounds <= 1000
        if not quorum_is_right or not 1 <= self.steps <= MAX_CHAIN_STEPS or self.slack < 1:
            raise UsageError(
                "A plan has 1 to R chains in its quorum, at least one step and a slack of at least 1."
            )


@dataclass(frozen=True)
class ChainRun:
    """One chain as the verifier's clock saw it. `warning` seconds passed from the first word that announced
    it until it began; `frozen` until the server went on. By kind of segment: bytes challenged, and bytes
    counted."""

    seconds: float
    late: bool
    correct: bool
    warning: float
    frozen: float
    challenged: dict[SegmentKind, int]
    counted: dict[SegmentKind, int]
    cache: CacheFinding | None = None


@dataclass(frozen=True)
class Holding:
    """What a session showed. `missing` is a share of the challenged bytes at some step of the quorum's best
    chain. What is counted is that of the chain in time that proves least; each kind in `proven_by_kind` has
    the one that proves least of it."""

    plan: HoldPlan
    calibration: Calibration
    welcome: Welcome
    segments: tuple[Segment, ...]
    challenged: dict[SegmentKind, int]
    counted: dict[SegmentKind, int]
    proven_by_kind: dict[SegmentKind, float]
    deadline: float
    missing_steps: float
    missing: float
    missing_bytes: float
    verdict: str
    chains: tuple[ChainRun, ...]

    @property
    def challenged_bytes(self) -> int:
        return sum(self.challenged.values())

    @property
    def counted_bytes(self) -> int:
        return sum(self.counted.values())

    @property
    def proven_bytes(self) -> float:
        return max(0.0, self.counted_bytes - self.missing_bytes)


def expected_link(segments: Sequence[Segment], sources: Sequence[Source], asked: Chain) -> bytes:
    """The end of the chain over the joined segments, computed from what they should hold."""
    sizes, reads = [segment.size for segment in segments], [source.read for source in sources]
    if sum(map(whole_blocks, sizes)) < asked.blocks * CHAIN_BLOCK_BYTES:
        raise UsageError("The chain asks for more than the segments hold.")
    return walk(asked, gather_by_reading(join_reads(reads, sizes), CHAIN_BLOCK_BYTES))


class Challenger:
    """Challenges a greeted agent, and keeps its ballast at what the rest of the map leaves free. A map of
    more than the `machine` has is refused."""

    def __init__(
        self,
        connection: Connection,
        machine: int,
        plan: HoldPlan,
        calibration: Calibration,
        declared: DeclaredState,
    ) -> None:
        self._connection = connection
        self._machine = machine
        self._plan = plan
        self._calibration = calibration
        self._declared = declared
        self._ballast = Ballast(connection)
        declared.noise = self._ballast.noise
        self._announced: float | None = None
        self.deadline = plan.slack * chain_seconds(plan.steps, calibration) + plan.allowance

    def fit_ballast(self) -> None:
        """Make the ballast what weights and key-value memory leave of the budget.

        Whoever hears that knows that a chain follows: its warning begins here.
        """
        self._announced = time.perf_counter()
        segments = self._connection.ask(Declare(), Segments, 30).segments
        others = sum(one.size for one in readable(segments) if one.kind is not SegmentKind.BALLAST)
        self._ballast.resize(self._plan.budget - others)
        self._declared.ballast = self._ballast.size

    def challenge(self) -> tuple[ChainRun | None, tuple[Segment, ...]]:
        """One chain over the map as it is at that moment, and the map.

        None when the server went on before all was read: that says nothing. Raises as `Connection.ask`, and
        IntegrityError for a map that cannot be.
        """
        told = time.perf_counter()
        announced, self._announced = self._announced or told, None
        declared = self._connection.ask(Freeze(_FREEZE_SECONDS), Segments, 2 * _FREEZE_SECONDS).segments
        segments = readable(declared)
        challenged = self._sizes(segments)
        contents = self._declared.contents(segments)
        blocks = sum(challenged.values()) // CHAIN_BLOCK_BYTES
        if blocks > MAX_CHAIN_BLOCKS:
            raise IntegrityError("The agent declares more memory than a chain can run over.")
        committed = self._ask_commitment(segments)  # its time is the prover's to read ahead in
        nonce = secrets.token_bytes(TAG_BYTES)
        asked = Chain(WHOLE_MAP, nonce, self._plan.steps, WIDTH, blocks)
        began = time.perf_counter()
        answer = self._connection.ask(asked, Link, _PATIENCE * self.deadline + 1)
        seconds = time.perf_counter() - began
        tokens, cached = self._read_cache(segments, time.monotonic() + _FREEZE_SECONDS)
        if not self._connection.ask(Thaw(), Done, 30).size:
            return None, declared
        frozen = time.perf_counter() - told
        cache = self._check(tokens, cached)
        sources = [one.source if one else BufferSource(cached[index]) for index, one in enumerate(contents)]
        counted = dict.fromkeys(challenged, 0)
        for segment, content in zip(segments, contents, strict=True):
            counted[segment.kind] += content.counted if content else 0
        if cache:
            counted[SegmentKind.KV_CACHE] = cache.counted
        correct = answer.value == expected_link(segments, sources, asked)
        correct = correct and (cache is None or cache.is_declared) and committed == _commitment(cached)
        late = seconds > self.deadline
        run = ChainRun(seconds, late, correct, began - announced, frozen, challenged, counted, cache)
        return run, declared

    def _sizes(self, segments: Sequence[Segment]) -> dict[SegmentKind, int]:
        sizes: dict[SegmentKind, int] = {}
        for segment in segments:
            sizes[segment.kind] = sizes.get(segment.kind, 0) + whole_blocks(segment.size)
        cached = sizes.get(SegmentKind.KV_CACHE, 0)
        if cached > self._plan.cache_limit:
            raise IntegrityError(
                f"The agent declares {cached >> 20} MiB of key-value memory, and at most "
                f"{self._plan.cache_limit >> 20} MiB are read out and computed again here; give more with "
                "--cache-mib, or the server fewer or shorter sequences."
            )
        if not sum(sizes.values()) or sum(sizes.values()) > self._machine:
            raise IntegrityError(
                "The agent declares nothing that can be challenged, or more than its machine has."
            )
        return sizes

    def _ask_commitment(self, segments: Sequence[Segment]) -> bytes | None:
        """What key-value memory is, said before the chain's key. Rounding leaves a prover some bits of it,
        empty places leave all: who chose them afterwards could lead the chain past what is missing."""
        if not any(segment.kind is SegmentKind.KV_CACHE for segment in segments):
            return None
        return self._connection.ask(Commit(), Committed, _FREEZE_SECONDS).digest

    def _read_cache(
        self, segments: Sequence[Segment], until: float
    ) -> tuple[Tokens | None, dict[int, memoryview]]:
        """What the key-value memory holds, by number of segment, while it stands still. Raises UndecidedError
        when it goes on before all was read."""
        numbers = [index for index, one in enumerate(segments) if one.kind is SegmentKind.KV_CACHE]
        if not numbers:
            return None, {}
        tokens = self._connection.ask(Sequences(), Tokens, 30)
        check_shape(tokens.shape, [segments[index].size for index in numbers], tokens.sequences)
        read = {
            index: dump_whole(self._connection, FIRST_SEGMENT + index, segments[index].size, until)
            for index in numbers
        }
        return tokens, read

    def _check(self, tokens: Tokens | None, cached: dict[int, memoryview]) -> CacheFinding | None:
        recompute = self._declared.recompute
        if tokens is None or recompute is None:
            return None
        return check_cache(tokens.shape, list(cached.values()), tokens.sequences, recompute)


def _commitment(cached: dict[int, memoryview]) -> bytes | None:
    """As an agent commits to what was read out; None for none."""
    if not cached:
        return None
    return commitment(segment_digest([data]) for data in cached.values())


def hold(
    connection: Connection, welcome: Welcome, plan: HoldPlan, calibration: Calibration,
    declared: DeclaredState, *, machine: int | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Holding:  # fmt: skip
    """Fill the ballast, then challenge a greeted agent until a quorum is in calm time, an answer is wrong, or
    the rounds are used up. When to stop may follow from what was seen: the bound is for all rounds and all
    `fixed_times` at once. `machine` is its memory as declared or inspected, None for its word.

    Raises as `Challenger.challenge`.
    """
    most = min(welcome.machine_bytes, machine or welcome.machine_bytes)
    challenger = Challenger(connection, most, plan, calibration, declared)
    chains: list[ChainRun] = []
    segments: tuple[Segment, ...] = ()
    calm = plan.calm * chain_seconds(plan.steps, calibration)
    challenger.fit_ballast()  # the whole of it; what changes until the chains is little and soon done
    for number in range(plan.rounds):
        progress("chains", number, plan.rounds)
        # Before the first word about the chain: afterwards a prover would fetch what is missing meanwhile.
        time.sleep(random.SystemRandom().expovariate(1 / plan.pause) if plan.pause else 0)
        challenger.fit_ballast()
        run, segments = challenger.challenge()
        if run is None:
            continue
        chains.append(run)
        if not run.correct or sum(chain.seconds <= calm for chain in chains) >= plan.quorum:
            break
    return judge_chains(plan, calibration, welcome, segments, chains, deadline=challenger.deadline)


def judge_chains(
    plan: HoldPlan, calibration: Calibration, welcome: Welcome, segments: Sequence[Segment],
    chains: Sequence[ChainRun], *, deadline: float,
) -> Holding:  # fmt: skip
    """What chains over `segments` prove; no I/O.

    Late chains only weaken the claim, a wrong one is an accusation. The bound (`chain_bound`) is about one
    of the chains in time, nobody knows which, so what counts is the one that proves least, in all and of each
    kind. From the warning to the end of the chain a prover may have read ahead.
    """
    in_time = [chain for chain in chains if not chain.late]
    gone, missing = 1.0, 1.0
    verdict = "fail" if any(not chain.correct for chain in chains) else "cannot-tell"
    rule = ChainRule(plan.steps, plan.rounds, plan.quorum, plan.error)
    bound = None
    if verdict != "fail":
        bound = chain_bound(rule, calibration, [chain.seconds for chain in in_time], deadline)
    if bound is not None:
        verdict, gone, missing = "pass", bound.gone, bound.missing
        in_time = [chain for chain in in_time if chain.seconds <= bound.within]

    def absent_in(chain: ChainRun) -> float:
        challenged, seconds = sum(chain.challenged.values()), chain.warning + chain.seconds
        return bound.missing_bytes(calibration, challenged, seconds) if bound else float(challenged)

    absent = [absent_in(chain) for chain in in_time]
    proven = [sum(chain.counted.values()) - away for chain, away in zip(in_time, absent, strict=True)]
    least = proven.index(min(proven)) if proven else None
    by_kind = {
        kind: min(
            max(0.0, chain.counted.get(kind, 0) - away) for chain, away in zip(in_time, absent, strict=True)
        )
        for kind in (in_time[least].counted if least is not None else ())
    }
    return Holding(
        plan=plan,
        calibration=calibration,
        welcome=welcome,
        segments=tuple(segments),
        challenged=in_time[least].challenged if least is not None else {},
        counted=in_time[least].counted if least is not None else {},
        proven_by_kind=by_kind,
        deadline=deadline,
        missing_steps=gone,
        missing=missing,
        missing_bytes=absent[least] if least is not None else 0.0,
        verdict=verdict,
        chains=tuple(chains),
    )
