"""Without the enforcer nothing leaves, and when it is back everything goes on, without a new tap."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.enforce.conftest import CHUNK
from tests.enforce.enforcer_process import EnforcerProcess
from tests.enforce.enforcing_tap import LENGTH, PROMPT, Tap, known
from tests.tap.scripted_upstream import Exchange, ScriptedUpstream
from ullage.enforce.protocol import Hello
from ullage.enforce.reference import ChunkedReference
from ullage.enforce.scheduler import Job, Scheduler
from ullage.enforce.service import Limits, Service
from ullage.enforce.state import ReferenceState, Request
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile
from ullage.tap.choices.enforcement import EnforcedRequest, EnforcerClient, EnforcerError

PROFILE = "murmur3-gumbel/f64"


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as found:
        yield found


def error_code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.slow
def test_a_tap_outlives_its_enforcer(
    tmp_path: Path, upstream: ScriptedUpstream, model_folder: Path, reference: ChunkedReference
) -> None:
    halfway, go_on = threading.Event(), threading.Event()

    async def half(exchange: Exchange) -> None:
        prompt = exchange.body["prompt"]
        right = list(known(reference, exchange.body["seed"]).ids)[len(prompt) - len(PROMPT) :]
        if len(right) < LENGTH:  # one that ends by itself; another will not
            await exchange.answer(right)
            return
        await exchange.begin()
        await exchange.event(right[:40])
        halfway.set()
        await asyncio.to_thread(go_on.wait, 60)
        await exchange.event(right[40:])
        await exchange.end()

    async def honest(exchange: Exchange) -> None:
        prompt = exchange.body["prompt"]
        await exchange.answer(list(known(reference, exchange.body["seed"]).ids[len(prompt) - len(PROMPT) :]))

    upstream.behaviour = half
    path, got, whole = tmp_path / "socket", "", 0
    with EnforcerProcess(path, model_folder, chunk=CHUNK) as first, ThreadPoolExecutor(1) as pool:
        tap = Tap(tmp_path, upstream, first, model_folder)
        tap.__enter__()
        while not halfway.is_set():
            asking = pool.submit(tap.ask, stream=True)
            while not asking.done() and not halfway.is_set():
                time.sleep(0.05)
            whole += not halfway.is_set()
        time.sleep(0.3)  # some of it is checked and released; then the enforcer dies in the middle
        assert first.process is not None
        first.process.kill()
        first.process.wait()
        go_on.set()
        got = asking.result(60).text
    assert "enforcer_unavailable" in got
    assert "[DONE]" not in got
    answer = tap.ask(stream=True)  # nothing has left yet, so it is an error like any other
    assert error_code(answer) == (503, "enforcer_unavailable")
    assert "The reference is gone" in answer.json()["error"]["message"]
    with EnforcerProcess(path, model_folder, chunk=CHUNK // 2) as other:  # another rule, another digest
        assert error_code(tap.ask()) == (503, "enforcer_unavailable")
        assert other.process is not None
    upstream.behaviour = honest
    with EnforcerProcess(path, model_folder, chunk=CHUNK, max_requests=9):  # how many it keeps may change
        assert tap.ask().status_code == 200
        tap.__exit__(None)
    torn, gone, wrong, back = tap.records()[whole:]
    right = known(reference, torn.open.seed)
    assert len(torn.output_ids) <= 40
    assert torn.output_ids == right.ids[: len(torn.output_ids)]
    for record in (torn, gone, wrong):
        assert record.close is not None
        assert record.close.outcome == "refused"
        assert "enforcer" in record.close.detail
    assert (gone.output_ids, wrong.output_ids) == ((), ())
    assert back.output_ids == known(reference, back.open.seed).ids
    assert sum("the enforcer is lost" in line for line in tap.told) == 1
    assert sum("the enforcer is back" in line for line in tap.told) == 1


def test_clients_that_hang_up_leave_their_places(
    tmp_path: Path,
    upstream: ScriptedUpstream,
    enforcer: EnforcerProcess,
    model_folder: Path,
    reference: ChunkedReference,
) -> None:
    """More of them than the enforcer keeps requests."""

    async def stalls(exchange: Exchange) -> None:
        await exchange.until_closed()

    upstream.behaviour = stalls
    with Tap(tmp_path, upstream, enforcer, model_folder, first_byte_timeout=1.0) as tap:
        for _ in range(8):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{tap.url}/v1/completions", json={"prompt": PROMPT, "max_tokens": 5}, timeout=0.1)
        answer = tap.ask()
        assert answer.status_code == 200
        right = known(reference, tap.records()[-1].open.seed)
        assert answer.json()["usage"]["completion_tokens"] == len(right.ids)


@pytest.mark.slow
def test_a_lost_connection_takes_only_its_own_requests_along(
    tmp_path: Path, model_folder: Path, reference: ChunkedReference
) -> None:
    path, told, right = tmp_path / "socket", list[str](), known(reference, 1).ids[:2]

    async def one(client: EnforcerClient) -> tuple[int, ...]:
        request = await begin(client)
        tokens = (await request.decode(2)).tokens
        request.close()
        return tokens

    async def use() -> None:
        with EnforcerProcess(path, model_folder, chunk=CHUNK, max_requests=1):
            client = await EnforcerClient.connect(path, reference.identity.digest, PROFILE, tell=told.append)
            before = await begin(client)
            waiting = [asyncio.ensure_future(one(client)) for _ in range(3)]
            await asyncio.sleep(0.1)
        with EnforcerProcess(path, model_folder, chunk=CHUNK, max_requests=1):
            await asyncio.sleep(0.2)
            with pytest.raises(EnforcerError, match="lost"):
                await before.decode(2)
            before.close()  # those who waited behind it go on to the new connection
            assert await asyncio.wait_for(asyncio.gather(*waiting), 30) == [right] * 3
            opened = await asyncio.wait_for(begin(client), 30)
            before._connection.abort(before._number)  # nor does a late word of it end another request
            assert (await opened.decode(2)).tokens == right
            opened.close()
            await client.close()

    asyncio.run(use())
    assert ["lost" in line for line in told] == [True, False]


async def begin(client: EnforcerClient) -> EnforcedRequest:
    return await client.begin(tuple(PROMPT), seed=1, temperature=0.9, top_p=1.0, top_k=0, max_tokens=LENGTH)


def test_those_who_wait_for_a_dead_socket_hear_of_it_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody listens and never answers: one patience for all, not one each."""
    monkeypatch.setattr("ullage.tap.choices.enforcement._HELLO_SECONDS", 0.5)
    hello = Hello(bytes(32), PROFILE)

    async def use() -> float:
        client = EnforcerClient(tmp_path / "mute", hello, lambda _: None)
        begun = asyncio.get_running_loop().time()
        found = await asyncio.gather(*(begin(client) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(one, EnforcerError) for one in found)
        return asyncio.get_running_loop().time() - begun

    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        assert asyncio.run(use()) < 4


def test_an_enforcer_that_breaks_ends(reference: ChunkedReference, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the scheduler's own must not leave requests without an answer for ever."""

    def broken(self: Scheduler) -> None:
        raise RuntimeError("a fault")

    async def use() -> None:
        service = Service(reference, get_profile(PROFILE), Limits(), 1)
        service.start()
        state = ReferenceState(
            reference, get_profile(PROFILE), Request(tuple(PROMPT), 1, SamplingParameters(), 5)
        )
        service.worker.submit(Job(state, state.decode(1), lambda _: None))
        await asyncio.wait_for(service.broken.wait(), 10)
        service.worker.stop()

    monkeypatch.setattr(Scheduler, "step", broken)
    asyncio.run(use())
