"""Release in slots: the schedule, the order, lateness and its allowance, padding; on a real tap."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream, text_ids
from tests.tap.small_tokenizer import EOS
from tests.tap.tap_process import TapProcess
from ullage.tap.clients.padding import comment, pad_body, pad_events
from ullage.tap.pacing.grid import (
    LATE_STEPS,
    Pace,
    ReleaseClock,
    lateness_step,
    padded_length,
    slots_of_step,
)
from ullage.tap.pacing.ledger import Allowance, Ledger, bits_per_opportunity, pattern_bits, seen_bits
from ullage.tap.pacing.schedule import Pacer, read_sentence

SLOT = 0.1
PACE = {"slot": SLOT, "tokens": 8, "lead": 2, "pad_to": 16, "chunk_bytes": 512}


@given(st.integers(0, 200))
@settings(deadline=None)
def test_late_steps(late: int) -> None:
    step = lateness_step(late)
    if step is None:
        assert late > slots_of_step(LATE_STEPS)
    else:
        assert step <= LATE_STEPS  # a later step would be a symbol that no bound counts
        assert slots_of_step(step) >= late
        assert step == 0 or slots_of_step(step - 1) < late


@given(st.integers(1, 10_000), st.integers(0, 256))
@settings(deadline=None)
def test_buckets(tokens: int, pad_to: int) -> None:
    length = padded_length(tokens, pad_to)
    assert tokens <= length < tokens + max(pad_to, 1)
    assert pad_to == 0 or length % pad_to == 0


@given(st.binary(max_size=3000), st.integers(8, 2048))
@settings(deadline=None)
def test_padding(data: bytes, multiple: int) -> None:
    padded = pad_events(data, multiple)
    assert len(padded) % multiple == 0
    assert padded.endswith(data)
    assert len(padded) < len(data) + 2 * multiple + 4
    assert len(pad_body(data, multiple)) % multiple == 0


@pytest.mark.parametrize("size", [4, 5, 100])
def test_comments_have_their_size(size: int) -> None:
    assert len(comment(size)) == size
    assert comment(size).startswith(b":")
    assert comment(size).endswith(b"\n\n")


@pytest.mark.parametrize(
    ("opportunities", "exceptions", "kinds"), [(5, 2, 3), (8, 8, 2), (6, 0, 7), (4, 9, 1)]
)
def test_pattern_bits_counts_patterns(opportunities: int, exceptions: int, kinds: int) -> None:
    patterns = sum(
        sum(symbol > 0 for symbol in pattern) <= exceptions
        for pattern in itertools.product(range(kinds + 1), repeat=opportunities)
    )
    assert pattern_bits(opportunities, exceptions, kinds) == pytest.approx(math.log2(patterns))


@pytest.mark.parametrize(("releases", "most"), [(1, 4), (3, 2), (4, 3)])
def test_bits_of_what_was_seen_cover_all_that_can_be(releases: int, most: int) -> None:
    """Each release may be late or failed, several times over: all that can be seen with so many exceptions is
    less than the bits allow for, and the lengths over all numbers satisfy Kraft's inequality.
    """
    kinds = LATE_STEPS + 1

    def ways(exceptions: int) -> int:
        """Sequences of exactly so many exceptions, any number of them at each release."""
        return math.comb(releases + exceptions - 1, exceptions) * int(kinds**exceptions)

    for exceptions in range(most + 1):
        assert math.log2(ways(exceptions)) <= seen_bits(releases, exceptions)
    assert sum(ways(one) * 2.0 ** -seen_bits(releases, one) for one in range(60)) <= 1


@given(st.floats(0.001, 0.9), st.integers(2, 8))
@settings(deadline=None)
def test_the_rate_bounds_every_pattern(share: float, kinds: int) -> None:
    for opportunities in (50, 1000):
        bits = pattern_bits(opportunities, math.floor(share * opportunities), kinds)
        assert bits <= bits_per_opportunity(share, kinds) * opportunities + 1e-6


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6), st.floats(0, 500)), max_size=40))
@settings(deadline=None)
def test_the_ledger_never_allows_more_than_it_says(history: list[tuple[int, int, float]]) -> None:
    now, spent = 0.0, []
    allowance = Allowance(share=0.1, burst=3, drip=100)
    ledger = Ledger(allowance, lambda: now, lambda: spent.append(1))
    allowed = opportunities = 0
    for good, bad, seconds in history:
        now += seconds
        for _ in range(good + bad):
            ledger.opportunity()
        opportunities += good + bad
        allowed += sum(ledger.exception("failed") for _ in range(bad))
        assert allowed <= allowance.most(opportunities, now) + 1e-9
    assert ledger.exceptions.total() == allowed + len(spent)


@pytest.mark.parametrize("order", ["fifo", "keyed"])
def test_the_order_within_a_slot_is_not_the_servers(order: Any) -> None:
    async def released(arrivals: list[int]) -> list[int]:
        clock = ReleaseClock(0.05, order, b"k" * 32)
        slot, seen = clock.next_slot() + 1, []

        async def one(counter: int) -> None:
            await clock.wait(slot, counter)
            seen.append(counter)

        tasks = []
        for counter in arrivals:
            tasks.append(asyncio.ensure_future(one(counter)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return seen

    if order == "fifo":
        assert asyncio.run(released([5, 3, 9, 1])) == [1, 3, 5, 9]
    else:  # the number of the slot is part of the key, so only one run can be compared with itself
        assert sorted(asyncio.run(released([5, 3, 9, 1]))) == [1, 3, 5, 9]


def _paced(interval: float) -> Pacer:
    def never() -> None:
        raise AssertionError("the tap's own lateness used an allowance up")

    ledger = Ledger(Allowance(share=0.0, burst=0.0, drip=0.0), time.monotonic, never)
    return Pacer(Pace(interval, tokens=8), ReleaseClock(interval), ledger)


def test_what_the_tap_itself_misses_is_late_by_steps_and_counted() -> None:
    """A server that gives the tap much to read can bring it about, so it may not go by as nobody's doing."""

    async def run() -> tuple[int, int, str, str]:
        pacer = _paced(0.02)
        schedule = pacer.schedule(8, 0)
        slot = schedule.place(0)
        await schedule.record_time(slot)
        time.sleep(5.5 * 0.02)  # the loop stands still: slots pass
        await schedule.reach(slot)
        left = math.floor(asyncio.get_running_loop().time() / 0.02)
        return left - slot, pacer.ledger.own, schedule.sentence(), pacer.schedule(8, 1).sentence()

    moved, own, sentence, after = asyncio.run(run())
    assert own >= 1
    assert moved >= 7  # five missed: one step of seven, or more on a busy machine
    if own == 1:
        assert moved in (7, 15)
    assert read_sentence(sentence) == (0, own)
    assert after == ""  # told once


def test_the_tap_may_be_late_by_more_than_a_step_goes() -> None:
    async def run() -> int:
        pacer = _paced(0.002)
        schedule = pacer.schedule(8, 0)
        slot = schedule.place(0)
        time.sleep(70 * 0.002)
        await schedule.reach(slot)
        return pacer.ledger.own

    assert asyncio.run(run()) >= 2


def _detail(tap: TapProcess) -> str:
    close = tap.closed().close
    assert close is not None
    return close.detail


def _ask(tap: TapProcess, **fields: Any) -> tuple[float, httpx.Response]:
    began = time.monotonic()
    response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", **fields}, timeout=30)
    return time.monotonic() - began, response


async def _after(exchange: Exchange, seconds: float, count: int) -> None:
    await asyncio.sleep(seconds)
    await exchange.answer([*text_ids("x" * (count - 1)), EOS])


def test_plain_answers_leave_at_their_slots(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace=PACE, link="whole") as tap:
        for delay, count, slots in ((0.0, 9, 2 + 2), (0.12, 16, 2 + 2), (0.0, 17, 2 + 4), (0.25, 30, 2 + 4)):
            upstream.behaviour = lambda exchange, d=delay, c=count: _after(exchange, d, c)  # type: ignore[misc]
            fastest = math.inf
            for _ in range(5):  # a busy machine may need several
                seconds, response = _ask(tap)
                assert response.status_code == 200
                assert len(response.content) % (16 * 8) == 0
                assert (slots - 2) * SLOT < seconds
                if (fastest := min(fastest, seconds)) < (slots + 2) * SLOT:
                    break
            assert fastest < (slots + 2) * SLOT
        assert tap.stop() == (0, "")
        tap.assert_sound()


@pytest.mark.parametrize("link", ["events", "whole"])
def test_streams_leave_in_equal_pieces(tmp_path: Path, link: str) -> None:
    async def irregular(exchange: Exchange) -> None:
        ids = [*text_ids("some text that is long enough"), EOS]
        if not exchange.body["stream"]:
            await exchange.answer(ids)
            return
        await exchange.begin()
        for token in ids:
            await exchange.event([token])
            await asyncio.sleep(0.005 if token % 3 else 0)
        await exchange.end()

    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace=PACE, link=link) as tap:
        upstream.behaviour = irregular
        request = {"prompt": "a", "stream": True, "stream_options": {"include_usage": True}}
        times, sizes = [], []
        with httpx.stream("POST", f"{tap.url}/v1/completions", json=request, timeout=30) as response:
            for piece in response.iter_raw():
                times.append(time.monotonic())
                sizes.append(len(piece))
        assert sum(sizes) % 512 == 0
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert sum(gaps) == pytest.approx(3 * SLOT, abs=1.5 * SLOT)  # 30 tokens: padded to 32, four slots
        with openai.OpenAI(base_url=f"{tap.url}/v1", api_key="unused", max_retries=0) as client:
            events = list(client.completions.create(model="small", prompt="a", stream=True))
        assert "".join(event.choices[0].text for event in events) == "some text that is long enough"
        assert tap.stop() == (0, "")
        tap.assert_sound()


@pytest.mark.parametrize("count", [9, 8, 3])
def test_a_stream_ends_though_its_server_ends_the_response_later(tmp_path: Path, count: int) -> None:
    """The last token is there slots before `[DONE]`: what is left is the last group, and no group more."""

    async def lingers(exchange: Exchange) -> None:
        await exchange.begin()
        for token in [*text_ids("x" * (count - 1)), EOS]:
            await exchange.event([token])
        await asyncio.sleep(6 * SLOT)
        await exchange.end()

    pace = {**PACE, "pad_to": 0}
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace=pace) as tap:
        upstream.behaviour = lingers
        request = {"prompt": "a", "stream": True, "n": 2}
        response = httpx.post(f"{tap.url}/v1/completions", json=request, timeout=5)
        assert response.text.rstrip().endswith("data: [DONE]")
        assert _detail(tap).startswith("late by ")  # a server that lingers is late, and that is counted
        assert tap.stop() == (0, "")
        tap.assert_sound()


def test_answers_that_are_late_move_by_steps_and_are_counted(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace=PACE, link="whole") as tap:
        upstream.behaviour = lambda exchange: _after(exchange, 1.0, 9)
        seconds, response = _ask(tap)  # due after 0.3 to 0.4 s: six or seven slots late, so seven
        assert response.status_code == 200
        assert seconds > 1.0
        late = int(_detail(tap).removeprefix("late by ").partition(" slots in 1 steps")[0])
        assert late in (7, 15)  # 15 on a busy machine
        assert tap.stop() == (0, "")


def test_failures_are_told_at_one_time(tmp_path: Path) -> None:
    """Whether the server fails at once or late: the client hears of it at the last slot."""

    async def breaks(exchange: Exchange) -> None:
        exchange.writer.transport.abort()

    async def breaks_late(exchange: Exchange) -> None:
        await asyncio.sleep(2.0)
        exchange.writer.transport.abort()

    slot = 0.05
    pace = {**PACE, "slot": slot}
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace=pace, link="whole") as tap:
        times = []
        for behaviour in (breaks, breaks_late):
            upstream.behaviour = behaviour
            seconds, response = _ask(tap, max_tokens=16)
            assert response.status_code == 502
            times.append(seconds)
        told = slot * (2 + 2 - 1 + 63)
        assert all(told - slot < seconds < told + 1.0 for seconds in times)
        assert tap.stop() == (0, "")


def test_spent_allowance_closes_the_tap_and_comes_back(tmp_path: Path) -> None:
    allowance = {"share": 0.0, "burst": 1.0, "drip": 2.0}
    pace = {**PACE, "slot": 0.02}
    options = {"pace": pace, "allowance": allowance, "link": "whole"}
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, **options) as tap:
        upstream.behaviour = lambda exchange: _after(exchange, 0.5, 9)
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(_ask(tap)[1])) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) in ([200, 503, 503], [503, 503, 503])
        assert {a.json()["error"]["code"] for a in answers if a.status_code == 503} == {"channel_exhausted"}
        assert _ask(tap)[1].json()["error"]["code"] == "channel_exhausted"
        upstream.behaviour = lambda exchange: _after(exchange, 0, 9)
        deadline = time.monotonic() + 8
        while _ask(tap)[1].status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        code, errors = tap.stop()
        assert code == 0
        assert "recovered from channel_exhausted" in errors
        tap.assert_sound()


def test_pace_of_one_group() -> None:
    assert Pace(0.25, pad_to=64).groups(1) == 2
    assert Pace(0.25).groups(1) == 1
    assert Pace(0.25, tokens=32).groups(33) == 2
