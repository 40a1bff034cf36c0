"""Every way an upstream may break: one proper error each, a closed record, nothing of its words."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import openai
import pytest

from tests.tap.scripted_upstream import Behaviour, Exchange, ScriptedUpstream, text_ids
from tests.tap.small_tokenizer import EOS, VOCABULARY
from tests.tap.tap_process import TapProcess

FAILED = "upstream_failed"  # the one error for whatever a server does, since a second would be a choice


async def html(exchange: Exchange) -> None:
    await exchange.whole(b"<html>SECRET</html>", b"text/html")


async def html_called_json(exchange: Exchange) -> None:
    kind = b"text/event-stream" if exchange.body["stream"] else b"application/json"
    await exchange.whole(b"data: <html>SECRET</html>\n\n", kind)


async def not_http(exchange: Exchange) -> None:
    await exchange.raw(b"SSH-2.0-OpenSSH_9.6 SECRET\r\n\r\n")
    await exchange.until_closed()


async def binary(exchange: Exchange) -> None:
    await exchange.raw(bytes(range(256)) * 40)
    await exchange.until_closed()


async def closes_at_once(exchange: Exchange) -> None:
    exchange.writer.close()


async def closes_in_head(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-")
    exchange.writer.close()


async def closes_in_body(exchange: Exchange) -> None:
    await exchange.raw(
        b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"cho'
    )
    exchange.writer.close()


async def resets(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\n")
    exchange.writer.transport.abort()


async def silent(exchange: Exchange) -> None:
    await exchange.until_closed()


async def silent_in_body(exchange: Exchange) -> None:
    kind = b"text/event-stream" if exchange.body["stream"] else b"application/json"
    await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: 999\r\n\r\n" % kind)
    await exchange.until_closed()


async def endless_head(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\n")
    for _ in range(4000):
        await exchange.raw(b"x-filler: " + b"SECRET" * 10 + b"\r\n")


async def upgrade(exchange: Exchange) -> None:
    await exchange.raw(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nSECRET"
    )
    await exchange.until_closed()


async def gzip(exchange: Exchange) -> None:
    await exchange.raw(
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-type: application/json\r\n"
        b"content-length: 2\r\n\r\n{}"
    )
    await exchange.until_closed()


async def garbage_chunks(exchange: Exchange) -> None:
    kind = b"text/event-stream" if exchange.body["stream"] else b"application/json"
    await exchange.raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n" % kind
    )
    await exchange.until_closed()


def endless_framing(opening: bytes) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        kind = b"text/event-stream" if exchange.body["stream"] else b"application/json"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % kind
        await exchange.raw(head + opening)
        while True:
            await exchange.raw(b"SECRET" * 10_000)

    return behave


async def huge(exchange: Exchange) -> None:
    kind = b"text/event-stream" if exchange.body["stream"] else b"application/json"
    await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: 9999999999\r\n\r\n" % kind)
    while True:
        await exchange.raw(b": " + b"x" * 100_000 + b"\n")


async def deep_json(exchange: Exchange) -> None:
    await exchange.whole(b"[" * 200_000)


def status(code: int) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        body = b'{"error": "SECRET"}'
        await exchange.raw(
            b"HTTP/1.1 %d SECRET\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            % (code, len(body))
            + body
        )

    return behave


def body(value: object) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        data = json.dumps(value).encode()
        if exchange.body["stream"]:
            await exchange.begin()
            await exchange.piece(b"data: " + data + b"\n\n")
            await exchange.end()
        else:
            await exchange.whole(data)

    return behave


def tokens(*ids: int, **extra: object) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.answer(list(ids), **extra)

    return behave


CASES: dict[str, tuple[Behaviour, str]] = {
    "html": (html, "content type"),
    "html called json": (html_called_json, "not JSON"),
    "not http": (not_http, "not HTTP"),
    "binary": (binary, "not HTTP"),
    "closes at once": (closes_at_once, "closed"),
    "closes in head": (closes_in_head, "closed"),
    "resets": (resets, ""),
    "silent": (silent, "in time"),
    "silent in body": (silent_in_body, "pause"),
    "endless head": (endless_head, ""),
    "upgrade": (upgrade, ""),
    "gzip": (gzip, "not asked for"),
    "garbage chunks": (garbage_chunks, "not HTTP"),
    "endless trailer": (endless_framing(b"1\r\n{\r\n0\r\nx-filler: "), "framing without end"),
    "endless extension of a chunk": (endless_framing(b"1\r\n{\r\n1;"), "framing without end"),
    "huge": (huge, ""),
    "status 200 without choices": (body({}), "choice"),
    "status 400": (status(400), "status 400"),
    "status 404": (status(404), "status 404"),
    "status 302": (status(302), "status 302"),
    "status 500": (status(500), "status 500"),
    "a list": (body([]), "not a JSON object"),
    "choices a string": (body({"choices": "SECRET"}), "choice"),
    "two choices": (body({"choices": [{"token_ids": []}] * 2}), "choice"),
    "a choice of null": (body({"choices": [None]}), "not an object"),
    "no ids": (body({"choices": [{"text": "SECRET"}]}), "token_ids"),
    "ids as strings": (body({"choices": [{"token_ids": ["5"]}]}), "token_ids"),
    "ids as floats": (body({"choices": [{"token_ids": [5.0]}]}), "token_ids"),
    "ids as booleans": (body({"choices": [{"token_ids": [True]}]}), "token_ids"),
    "id beyond the vocabulary": (tokens(VOCABULARY, EOS), "outside the vocabulary"),
    "negative id": (tokens(-1, EOS), "outside the vocabulary"),
    "enormous id": (tokens(10**30, EOS), "outside the vocabulary"),
    "tokens after EOS": (tokens(EOS, 9), "after the end"),
    "two EOS": (tokens(EOS, EOS), "after the end"),
    "more than max_tokens": (tokens(9, 9, 9, 9, 9, 9), "after the end"),
    "tokens after a stop": (tokens(*text_ids("zzzq")), "after the end"),
    "ends early": (tokens(9, 9), "ended early"),
    "no tokens": (tokens(), "ended early"),
    "other prompt ids": (tokens(EOS, prompt_token_ids=[1, 2, 3]), "prompt ids differ"),
    "prompt ids of a wrong type": (tokens(EOS, prompt_token_ids={"SECRET": 1}), "prompt_token_ids"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("name", CASES)
def test_breach(tap: TapProcess, upstream: ScriptedUpstream, name: str, stream: bool) -> None:
    upstream.behaviour, detail = CASES[name]
    before = len(tap.records())
    request = {"prompt": "ab", "max_tokens": 5, "stop": "zzz", "stream": stream}
    response = httpx.post(f"{tap.url}/v1/completions", json=request, timeout=20)
    assert b"SECRET" not in response.content
    if response.headers["content-type"] == "application/json":
        error = response.json()["error"]
        assert response.status_code == 502
    else:
        assert response.status_code == 200
        last = response.text.split("\n\n")[-2]
        error = json.loads(last.removeprefix("data: "))["error"]
        assert "[DONE]" not in response.text
    assert error["code"] == FAILED
    assert list(error) == ["message", "type", "param", "code"]
    record = tap.closed(before)
    assert record.close is not None
    assert record.close.outcome == ("refused" if name == "other prompt ids" else "upstream-failed")
    assert detail in record.close.detail
    assert record.close.finish_reason is None
    assert record.close.bytes_to_client == len(response.content)
    if not stream:
        assert record.close.output_ids == ()


def test_stream_that_breaks_after_text(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    async def breaks(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event(text_ids("some text"))
        await asyncio.sleep(0.2)
        exchange.writer.transport.abort()

    upstream.behaviour = breaks
    with openai.OpenAI(base_url=f"{tap.url}/v1", api_key="unused", max_retries=0) as client:
        stream = client.completions.create(model="small", prompt="a", stream=True)
        seen = "".join(next(stream).choices[0].text for _ in "some text")
        with pytest.raises(openai.APIError, match="no valid answer"):
            list(stream)
    assert seen == "some text"
    record = tap.closed()
    assert record.close is not None
    assert record.close.outcome == "upstream-failed"
    assert record.close.output_ids == tuple(text_ids("some text"))


def test_slow_drip_ends_with_the_total_time(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.piece(b": comment\n\n")
            await asyncio.sleep(0.1)

    upstream.behaviour = drip
    response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", "stream": True}, timeout=20)
    assert (response.status_code, response.json()["error"]["code"]) == (502, FAILED)


@pytest.mark.parametrize("case", ["lone surrogate", "a number", "very long"])
def test_fingerprints_of_all_kinds(tap: TapProcess, upstream: ScriptedUpstream, case: str) -> None:
    value = {"lone surrogate": '"\\ud800"', "a number": "5", "very long": '"' + "é" * 5000 + '"'}[case]

    async def behave(exchange: Exchange) -> None:
        await exchange.whole(b'{"choices":[{"token_ids":[9,0]}],"system_fingerprint":%s}' % value.encode())

    upstream.behaviour = behave
    response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"})
    close = tap.closed().close
    assert close is not None
    assert (response.status_code, close.outcome) in ((200, "complete"), (502, "upstream-failed"))


def test_one_choice_of_two_fails(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    served = 0

    async def every_second(exchange: Exchange) -> None:
        nonlocal served
        served += 1
        if served % 2:
            await exchange.answer([*text_ids("fine"), EOS])
        else:
            await asyncio.sleep(0.1)
            await exchange.answer([VOCABULARY])

    upstream.behaviour = every_second
    before = len(tap.records())
    response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", "n": 2})
    assert response.status_code == 502
    outcomes = []
    for index in range(2):
        close = tap.closed(before + index).close
        assert close is not None
        outcomes.append(close.outcome)
        assert close.output_ids == ()
    assert sorted(outcomes) == ["refused", "upstream-failed"]


def test_stale_connection_is_replaced(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    async def answers_and_closes(exchange: Exchange) -> None:
        await exchange.answer([*text_ids("x"), EOS])
        exchange.writer.transport.abort()

    upstream.behaviour = answers_and_closes
    for _ in range(5):
        response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"})
        assert response.status_code == 200


def test_body_that_the_end_of_the_connection_ends(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    async def unframed(exchange: Exchange) -> None:
        await exchange.raw(
            b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"choices":[{"token_ids":[9,0]}]}'
        )
        exchange.writer.close()

    upstream.behaviour = unframed
    response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"})
    assert response.status_code == 200


def test_upstream_that_is_down(tmp_path: Path) -> None:
    with TapProcess(tmp_path, "http://127.0.0.1:9") as tap:
        for stream in (False, True):
            response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", "stream": stream})
            assert (response.status_code, response.json()["error"]["code"]) == (502, FAILED)
        assert tap.stop() == (0, "")
        tap.assert_sound()
        assert [record.close and record.close.outcome for record in tap.records()] == ["upstream-failed"] * 2
