"""Nothing that a client received is missing from the log, however the tap or the client ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream, text_ids
from tests.tap.small_tokenizer import EOS, small_tokenizer
from tests.tap.tap_process import TapProcess
from ullage.errors import UsageError
from ullage.log.keys import Role, create_keys, load_tap_keys
from ullage.log.record import ChunkPart
from ullage.tap.run import Declaration, open_log


async def count_slowly(exchange: Exchange) -> None:
    """A number every few milliseconds, without end."""
    await exchange.begin()
    number = 0
    while True:
        await exchange.event(text_ids(f"{number} "))
        await asyncio.sleep(0.02)
        number += 1


def _start_stream(tap: TapProcess) -> socket.socket:
    host, port = tap.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    body = b'{"prompt": "a", "stream": true, "max_tokens": 500}'
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nhost: tap\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )
    return connection


def _body(received: bytes) -> bytes:
    """The bytes of a chunked body, as far as whole chunks have come."""
    _, _, rest = received.partition(b"\r\n\r\n")
    body = b""
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if len(rest) < length:
            break
        body += rest[:length]
        rest = rest[length + 2 :]
    return body


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.3])
def test_kill_in_the_middle_of_streams(tmp_path: Path, delay: float) -> None:
    with ScriptedUpstream() as upstream:
        upstream.behaviour = count_slowly
        received = [b""] * 4
        with TapProcess(tmp_path, upstream.url) as tap:
            connections = [_start_stream(tap) for _ in received]

            def drain(index: int) -> None:
                try:
                    while data := connections[index].recv(65536):
                        received[index] += data
                except ConnectionError:
                    pass

            threads = [threading.Thread(target=drain, args=(index,)) for index in range(len(received))]
            for thread in threads:
                thread.start()
            time.sleep(0.2 + delay)
            assert tap.process is not None
            tap.process.kill()
            for thread in threads:
                thread.join(10)
        with TapProcess(tmp_path, upstream.url) as tap:  # recovers
            _, errors = tap.stop()
        assert "closed as aborted" in errors
        tap.assert_sound()
        records = tap.records()
        assert {record.close and record.close.outcome for record in records} == {"aborted"}
        for data in received:
            body = _body(data)
            assert body
            assert any(_covers(record.chunks, body) for record in records)


def _covers(chunks: Sequence[ChunkPart], body: bytes) -> bool:
    """Whether the chunks describe every byte of `body`.

    A chunk of several events may have left in part: then its digest says nothing, but its tokens do.
    """
    for chunk in chunks:
        if len(body) < chunk.bytes:
            return small_tokenizer().decode(chunk.output_ids).startswith(_text(body))
        if chunk.digest != "sha256:" + hashlib.sha256(body[: chunk.bytes]).hexdigest():
            return False
        body = body[chunk.bytes :]
    return not body


def _text(events: bytes) -> str:
    """What whole events of a completion say."""
    *whole, rest = events.split(b"\n\n")
    assert not rest
    return "".join(json.loads(event.removeprefix(b"data: "))["choices"][0]["text"] for event in whole)


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_disconnects(tap: TapProcess, upstream: ScriptedUpstream, stream: bool) -> None:
    cancelled = threading.Event()

    async def behave(exchange: Exchange) -> None:
        if stream:
            await exchange.begin()
            await exchange.event(text_ids("begun"))
        await exchange.until_closed()
        cancelled.set()

    upstream.behaviour = behave
    before = len(tap.records())
    host, port = tap.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        body = b'{"prompt": "a", "stream": %s}' % (b"true" if stream else b"false")
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        if stream:
            received = b""
            while received.count(b"data: ") < len("begun"):
                piece = connection.recv(65536)
                assert piece, received
                received += piece
        else:
            time.sleep(0.2)
    assert cancelled.wait(5)
    record = tap.closed(before)
    assert record.close is not None
    assert record.close.outcome == "client-gone"
    assert record.close.output_ids == (tuple(text_ids("begun")) if stream else ())


def test_termination_lets_requests_finish(tmp_path: Path) -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.5)
        await exchange.answer([*text_ids("late"), EOS])

    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url) as tap:
        upstream.behaviour = slow
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"}, timeout=20))

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.3)
        assert tap.stop() == (0, "")
        thread.join(10)
        assert answers[0].json()["choices"][0]["text"] == "late"
        tap.assert_sound()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_termination_aborts_what_does_not_end(tmp_path: Path, number: int) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, grace=1) as tap:
        upstream.behaviour = count_slowly
        connection = _start_stream(tap)
        assert connection.recv(65536)
        assert tap.stop(number) == (0, "")
        received = b""
        while data := connection.recv(65536):
            received += data
        assert b'"code":"shutting_down"' in received
        connection.close()
        tap.assert_sound()
        (record,) = tap.records()
        assert record.close is not None
        assert record.close.outcome == "aborted"
        assert len(record.close.output_ids) > 20


def test_full_disk(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, file_bytes=20_000) as tap:
        with httpx.Client() as client:
            for _ in range(100):
                forwarded = len(upstream.requests)
                response = client.post(f"{tap.url}/v1/completions", json={"prompt": "a"})
                if response.status_code != 200:
                    break
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "log_unavailable"
            assert client.get(f"{tap.url}/health").status_code == 503
            forwarded = len(upstream.requests)
            again = client.post(f"{tap.url}/v1/completions", json={"prompt": "a", "stream": True})
            assert again.status_code == 503
            assert len(upstream.requests) == forwarded
        code, errors = tap.stop()
        assert code == 4
        assert "is full" in errors
        assert "Traceback" not in errors


def test_one_writer_and_a_log_that_is_continued(tmp_path: Path) -> None:
    with TapProcess(tmp_path, "http://127.0.0.1:9") as tap:
        with (
            pytest.raises(AssertionError, match="Another process"),
            TapProcess(tmp_path, "http://127.0.0.1:9"),
        ):
            pass
        httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"})
        tap.stop()
    with TapProcess(tmp_path, "http://127.0.0.1:9") as tap:
        httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"})
        assert tap.stop() == (0, "")
    tap.assert_sound()
    assert [record.counter for record in tap.records()] == [0, 1]


def test_log_of_another_declaration_is_refused(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys", Role.TAP)
    keys = load_tap_keys(tmp_path / "keys")
    model, commitment = "sha256:" + "0" * 64, "sha256:" + "1" * 64
    first = Declaration(model, "murmur3-gumbel/f64", "float32", lambda log_id: commitment)
    open_log(tmp_path / "log", keys, first).close()
    open_log(tmp_path / "log", keys, replace(first, commitment=lambda log_id: None)).close()
    for other in (
        replace(first, model_digest="sha256:" + "2" * 64),
        replace(first, profile="greedy"),
        replace(first, dtype="bfloat16"),
        replace(first, commitment=lambda log_id: "sha256:" + "3" * 64),
        replace(first, reference_digest="sha256:" + "4" * 64),
    ):
        with pytest.raises(UsageError, match="another folder"):
            open_log(tmp_path / "log", keys, other)
    open_log(tmp_path / "log", keys, first).close()
    with pytest.raises(UsageError, match="header cannot be made"):
        open_log(tmp_path / "new", keys, replace(first, model_digest="nonsense"))
