"""Erasures asked for by spots: what is drawn, honest agents, cheats that are processes, and the rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from tests.memory.agents import CALIBRATION, MIB, agent, running
from ullage.errors import IntegrityError, UndecidedError, UsageError
from ullage.memory import bounds
from ullage.memory.agent.keeper import Keeper
from ullage.memory.erasure import MODES, Mode, Plan
from ullage.memory.erasure.by_spots import SpotsRule, judge_spots, spots_deadline
from ullage.memory.erasure.plan import store_spot_rate
from ullage.memory.erasure.spot_expectation import expect_spots
from ullage.memory.measure import store_rates
from ullage.memory.noise.butterfly import ButterflyNoise
from ullage.memory.noise.noise import BLOCK_BYTES, Noise, StreamNoise
from ullage.memory.protocol.questions import MAX_STRATA, Spots
from ullage.memory.protocol.spots import spot_numbers, spot_tags
from ullage.memory.protocol.timing import Timing
from ullage.memory.residency.chain_bound import TIMES, fixed_times
from ullage.memory.verifier import run_erasure
from ullage.redteam.memory.cheat import Setting
from ullage.redteam.memory.registry import get_cheat

SIZE = 64 * MIB
KEY = bytes(range(32))
# No other store, and a generator that is slow: a claim is close to all that answers, also on a busy machine.
FAR = CALIBRATION.model_copy(update={"store_rate": 0.0, "store_reads": 0.0, "rebuild_rate": 1e6})


def plan(mode: Mode) -> Plan:
    return Plan(mode, SIZE, by="spots", rounds=6, layers=16 if mode == "rate-gap" else None)


def plain_places(asked: Spots) -> list[int]:
    """As `docs/formats/memory-protocol.md` says it: where each spot begins."""
    stream = Cipher(algorithms.AES(asked.key), modes.CTR(b"\xff" * 8 + bytes(8))).encryptor()
    drawn = stream.update(bytes(2 * asked.strata))
    return [
        65536 * place + 128 * (int.from_bytes(drawn[2 * place : 2 * place + 2], "little") % 512)
        for place in range(asked.strata)
    ]


@given(st.binary(min_size=32, max_size=32), st.integers(1, 9000))
def test_the_places_are_those_that_the_format_says(key: bytes, strata: int) -> None:
    asked = Spots(0, 5, key, strata)
    cut = strata // 8192  # segments in two runs, as two workers would
    runs = [spot_numbers(asked, range(cut)), spot_numbers(asked, range(cut, asked.segments))]
    assert (np.concatenate(runs) * 128).tolist() == plain_places(asked)


def test_a_golden_answer() -> None:
    keeper = Keeper((2 * BLOCK_BYTES,), threads=2)
    keeper.map(0, 0)
    keeper.fill(0, 2 * BLOCK_BYTES, KEY, 3)
    asked, noise = Spots(0, 4, KEY, 8), ButterflyNoise(KEY, 3)
    tag = Cipher(algorithms.AES(KEY), modes.GCM((4).to_bytes(4, "big") + bytes(8))).encryptor()
    tag.authenticate_additional_data(b"".join(noise.read(place, 128) for place in plain_places(asked)))
    tag.finalize()
    assert keeper.spots(asked) == [tag.tag] == [bytes.fromhex("8520a4098b16fd213d49ff818a17255a")]


def test_each_place_of_a_stratum_is_as_likely() -> None:
    asked = Spots(0, 0, KEY, 1 << 18)
    drawn = spot_numbers(asked, range(asked.segments)) % 512
    counts = np.bincount(drawn, minlength=512)
    assert abs(counts - 512).max() < 6 * 512**0.5  # six standard deviations


@pytest.mark.parametrize("kind", ["host", "device"])
@pytest.mark.parametrize("noise", [ButterflyNoise(KEY, 3), StreamNoise(KEY)])
def test_keeper_and_verifier_agree(noise: Noise, kind: str) -> None:
    size = 1100 * BLOCK_BYTES  # more than one segment of strata
    keeper = Keeper((size, size), ("cpu",), threads=2)
    space = int(kind == "device")
    region = keeper.map(space, size)
    region.commit(0, noise.read(0, size))
    if kind == "host":
        region.borrow(0, size)[:] = noise.read(0, size)
    asked = Spots(space, 1, KEY, size // 65536)
    expected = spot_tags(asked, range(asked.segments), noise.gather)
    assert len(expected) == 2
    assert keeper.spots(asked) == expected
    place = plain_places(asked)[4200]
    for at, changed in ((place - 1, place % 65536 == 0), (place, True), (place + 127, True)):
        byte = bytes(region.read(at, 1))
        region.commit(at, memoryview(bytearray([byte[0] ^ 1])))
        if kind == "host":
            region.borrow(at, 1)[0] = byte[0] ^ 1
        assert (keeper.spots(asked)[1] != expected[1]) is changed
        region.commit(at, memoryview(bytearray(byte)))
        if kind == "host":
            region.borrow(at, 1)[0] = byte[0]


@pytest.mark.parametrize("mode", MODES)
def test_an_honest_agent_passes(mode: Mode) -> None:
    with agent(SIZE // MIB) as address:
        found, (claim,) = run_erasure(address, plan(mode), FAR, SIZE, {})
    assert (found.verdict, found.by) == ("pass", "spots")
    assert claim.value is not None
    assert 0.9 < claim.value < 1
    assert claim.method == f"{mode}-spots/3"
    assert any("reads a second" in one for one in claim.assumptions)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name",
    ["drop", "concentrated-gap", "compress", "disk", "swap", "precomputed", "regenerate", "shared-seed",
     "throttle", "unreached", "balloon-inspected"],
)  # fmt: skip
def test_cheats_get_no_claim_above_the_truth(name: str, mode: Mode, tmp_path: Path) -> None:
    cheat = get_cheat(name)
    setting = Setting(SIZE, 0.25, tmp_path)
    machine = cheat.machine_bytes(setting) if cheat.machine_bytes else SIZE
    rates = FAR
    if mode == "rate-gap":  # a cheat that rebuilds is as quick as this machine is
        rates = FAR.model_copy(update={"rebuild_rate": 100e9})
    if name in ("disk", "swap"):
        disk = store_rates(tmp_path, 3)
        rates = rates.model_copy(update={"store_rate": disk.rate, "store_reads": disk.reads})
    arguments = (
        "--listen", "127.0.0.1:0", "--size-mib", str(SIZE // MIB), "--share", "0.25",
        "--folder", str(tmp_path),
    )  # fmt: skip
    with running("redteam", "memory-agent", name, *arguments) as (address, _):
        found, (claim, *_) = run_erasure(address, plan(mode), rates, machine, {})
    assert claim.value is not None
    assert claim.value <= 1 - cheat.withholds(setting)
    if name == "precomputed" or (mode == "stream" and name in ("drop", "concentrated-gap", "regenerate")):
        assert found.verdict == "fail"


RATES = CALIBRATION.model_copy(update={"spot_rate": 2e9, "store_rate": 1e9, "store_reads": 100e3})
RULE = SpotsRule(1 << 18, 5, 2, 1e-6, 0.02e9)
DEADLINE = spots_deadline(RULE.strata, RATES, 0.002)


def judged(*timings: tuple[float, bool | None]) -> tuple[str, float]:
    rounds = tuple(Timing(seconds, seconds > DEADLINE, correct) for seconds, correct in timings)
    _, missing, verdict, _ = judge_spots(RULE, RATES, rounds, deadline=DEADLINE)
    return verdict, missing


def test_the_verdict_follows_the_rule() -> None:
    verdict, missing = judged((0.017, True), (0.018, True))
    within = next(time for time in fixed_times(DEADLINE) if time >= 0.018)
    least = within * (0.02e9 + store_spot_rate(RATES)) / RULE.asked_bytes
    assert verdict == "pass"
    assert least < missing < 1.15 * least < 0.1
    assert missing >= bounds.missing_share(least, 1 << 18, 1 << 19, 5, 2, error=1e-6 / TIMES)
    assert judged((0.03, True)) == ("cannot-tell", 1.0)
    assert judged((0.03, True), (9.0, True)) == ("cannot-tell", 1.0)
    assert judged((0.03, True), (0.03, False)) == ("fail", 1.0)
    assert judged((0.03, True), (0.03, True), (60.0, None)) == judged((0.03, True), (0.03, True))
    assert judged() == ("cannot-tell", 1.0)


def test_a_store_brings_three_spots_a_read_and_one_a_stratum_in_a_row() -> None:
    assert store_spot_rate(RATES) == pytest.approx(128 * (300e3 + 1e9 / 65536))


@given(st.lists(st.floats(0.003, 0.2), min_size=2, max_size=5), st.floats(0.0, 0.2))
def test_slower_rounds_never_prove_more(seconds: list[float], more: float) -> None:
    here = judged(*[(one, True) for one in seconds])[1]
    assert judged(*[(one + more, True) for one in seconds])[1] >= here - 1e-12


@pytest.mark.parametrize("spread", [1, 4, 128])
def test_what_is_missing_is_met_at_least_as_often_as_claimed(spread: int) -> None:
    """A prover misses as much as the claim, all of it in one of `spread` strata, and gets by no more often
    than the error, however unevenly that lies."""
    strata, recoverable, error = 4096, 0.02 / spread, 0.02  # of spots, those that it can bring in time
    missing = bounds.missing_share(recoverable, strata, strata + 1, 1, 1, error=error)
    random = np.random.default_rng(spread)
    hit = random.binomial(strata // spread, min(1.0, spread * missing), 20_000)
    passed = float(np.mean(hit <= recoverable * strata))
    assert passed <= error


def test_more_than_can_be_asked_about_is_turned_away() -> None:
    with pytest.raises(IntegrityError, match="--by pass"):
        SpotsRule(MAX_STRATA + 1, 5, 2, 1e-6, 0.0)


@pytest.mark.parametrize("strata", [8, 4096 + 40])
def test_what_is_expected_of_a_seed_is_what_its_noise_answers(strata: int) -> None:
    """All rounds at once and in pieces, against each by itself."""
    noise = ButterflyNoise(KEY, 10)
    asked = [Spots(0, number, bytes([number]) * 32, strata) for number in range(3)]
    seen: list[tuple[int, int]] = []
    found = expect_spots(
        lambda: ButterflyNoise(KEY, 10), asked, 2, lambda done, total: seen.append((done, total))
    )
    assert found == [spot_tags(one, range(one.segments), noise.gather) for one in asked]
    assert seen[-1] == (strata // 16, strata // 16)


def test_the_expectation_ends_when_nobody_wants_it() -> None:
    def call_off() -> None:
        raise UndecidedError("called off")

    with pytest.raises(UndecidedError):
        expect_spots(lambda: ButterflyNoise(KEY, 10), [Spots(0, 0, KEY, 4096)], 2, go_on=call_off)


def test_spots_are_not_asked_of_noise_that_is_rebuilt_too_soon() -> None:
    with pytest.raises(UsageError, match="more than 9 layers"):
        Plan("rate-gap", by="spots", layers=9).layers_of("spots", CALIBRATION)
    assert Plan("rate-gap", by="pass", layers=9).layers_of("pass", CALIBRATION) == 9
    assert Plan("stream", layers=9).layers_of("spots", CALIBRATION) == 0


def test_layers_keep_what_can_be_rebuilt_small() -> None:
    chosen = Plan("rate-gap").layers_of("spots", RATES)
    for layers, is_enough in ((chosen, True), (chosen - 1, False)):
        rate = Plan("rate-gap").rebuild_rate("spots", layers, RATES)
        assert rate == pytest.approx(1.25 * RATES.rebuild_rate / (128 * (layers - 9)))
        assert (rate / RATES.spot_rate <= 0.016) is is_enough
    rate = Plan("rate-gap", advantage=2.0).rebuild_rate("pass", 40, RATES)
    assert rate == pytest.approx(2 * RATES.rebuild_rate / 80)
