"""What a client receives is a function of the tokens: each test is a way to say more, and that it is shut."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import httpx
import pytest

from tests.tap.scripted_upstream import Behaviour, Exchange, ScriptedUpstream, text_ids
from tests.tap.small_tokenizer import EOS, SPECIAL, small_tokenizer
from tests.tap.tap_process import TapProcess
from tests.tap.test_bad_upstreams import CASES
from ullage.tap.choices.canonical import CanonicalSpelling

TEXT = "Grüße aus 東京, and good day."


def _without_record(body: bytes) -> bytes:
    """A body without what every record has of its own: id, time, counter, seed."""
    body = re.sub(rb'"id":"[^"]*"', b"", body)
    body = re.sub(rb'"created":\d+', b"", body)
    return re.sub(rb'"counter":"\d+","seed":"\d+"', b"", body)


def _cut(sizes: list[int], pause: float = 0.0) -> Behaviour:
    """The same answer, cut into events of these sizes."""

    async def behave(exchange: Exchange) -> None:
        ids = [*text_ids(TEXT), EOS]
        await exchange.begin()
        for size in sizes:
            await exchange.event(ids[:size])
            del ids[:size]
            await asyncio.sleep(pause)
        await exchange.event(ids)
        await exchange.end()

    return behave


def test_how_the_server_cuts_its_stream_does_not_show(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    seen = set()
    for behaviour in (_cut([]), _cut([1] * 20), _cut([2, 7, 1, 0, 3], 0.02), _cut([9, 0, 0, 9])):
        upstream.behaviour = behaviour
        response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", "stream": True})
        seen.add(_without_record(response.content))
    assert len(seen) == 1


def test_every_event_is_an_http_chunk_of_its_own(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    body = b'{"prompt": "a", "stream": true}'
    head = b"POST /v1/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    for behaviour in (_cut([]), _cut([5, 5], 0.02)):
        upstream.behaviour = behaviour
        host, port = tap.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head + body)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        _, _, rest = received.partition(b"\r\n\r\n")
        chunks = []
        while not rest.startswith(b"0\r\n"):
            size, _, rest = rest.partition(b"\r\n")
            chunks.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
        assert all(chunk.startswith(b"data: ") and chunk.count(b"data: ") == 1 for chunk in chunks)
        assert len(chunks) == len(TEXT) + 2  # a character each, the end, [DONE]


@pytest.mark.parametrize("stream", [False, True])
def test_every_fault_reads_the_same(tap: TapProcess, upstream: ScriptedUpstream, stream: bool) -> None:
    quick = [name for name in CASES if not name.startswith(("silent", "huge", "endless"))]
    seen = set()
    for name in quick:
        upstream.behaviour = CASES[name][0]
        request = {"prompt": "ab", "max_tokens": 5, "stop": "zzz", "stream": stream}
        response = httpx.post(f"{tap.url}/v1/completions", json=request, timeout=20)
        if response.headers["content-type"] == "application/json":
            seen.add((response.status_code, response.content, tuple(response.headers.items())))
    assert len(seen) == 1


def test_heads_have_nothing_but_type_and_length(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    plain = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"})
    assert set(plain.headers) == {"content-type", "content-length"}
    stream = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", "stream": True})
    assert dict(stream.headers) == {"content-type": "text/event-stream", "transfer-encoding": "chunked"}


def test_tokens_without_text_are_flagged(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    """A special token has no text: its presence shows in no word of the answer."""
    user = SPECIAL.index("<|user|>")

    async def hides_a_token(exchange: Exchange) -> None:
        await exchange.answer([*text_ids("ab"), user, *text_ids("cd"), EOS])

    upstream.behaviour = hides_a_token
    response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"})
    assert response.json()["choices"][0]["text"] == "abcd"
    close = tap.closed().close
    assert close is not None
    assert close.detail == "token ids not canonical from position 2"


def test_canonical_spelling_of_cut_characters() -> None:
    spelling = CanonicalSpelling(small_tokenizer())
    ids = text_ids("é東")
    assert spelling.departs_at(ids) is None
    for length in range(len(ids)):  # an output may end within a character
        assert spelling.departs_at(ids[:length]) is None
    assert spelling.departs_at([*ids, EOS]) is None
    assert spelling.departs_at([*ids, 1, *ids]) == len(ids)


@pytest.mark.parametrize("form", ["events", "chunks", "whole"])
def test_the_links_form_does_not_show(tmp_path: Path, form: str) -> None:
    bodies = []
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, link=form) as tap:
        for stream in (False, True):
            response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", "stream": stream})
            bodies.append(_without_record(response.content))
            asked = upstream.requests[-1]
            assert asked["stream"] == (stream and form != "whole")
            assert asked.get("stream_interval") == (32 if stream and form == "chunks" else None)
            assert asked.get("only_token_ids") == (None if form == "events" else True)
        assert tap.stop() == (0, "")
        tap.assert_sound()
    assert b"Good day." in bodies[0]
    assert bodies[1].count(b"data: ") == len("Hello, wörld! Good day.") + 2
