"""What clients may send, and what they get when they send something else."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream
from tests.tap.tap_process import TapProcess


def _error(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return response.status_code, error["code"], error["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/v1/completions"), ("POST", "/v1/models"), ("POST", "/v1/embeddings"),
     ("GET", "/metrics"), ("PUT", "/v1/chat/completions"), ("GET", "/v1/models/small"),
     ("GET", "/v1/%C3%A9")],
)  # fmt: skip
def test_unknown_addresses(tap: TapProcess, method: str, path: str) -> None:
    assert _error(httpx.request(method, tap.url + path))[:2] == (404, "not_found")


def test_models_and_health(tap: TapProcess) -> None:
    (model,) = httpx.get(f"{tap.url}/v1/models").json()["data"]
    assert model["id"] == "small"
    assert model["ullage"]["profile"] == "murmur3-gumbel/f64"
    assert model["ullage"]["log_id"] == tap.reader().header.log_id
    assert httpx.get(f"{tap.url}/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"tools": [{"type": "function"}]}, "unsupported_field", "'tools'"),
        ({"logit_bias": {"5": 1}, "min_p": 0.1}, "unsupported_field", "'logit_bias', 'min_p'"),
        ({"logprobs": True}, "unsupported_field", "'logprobs'"),
        ({"response_format": {"type": "json_object"}}, "unsupported_field", "'response_format'"),
        ({"frequency_penalty": 0.5}, "unsupported_field", "'frequency_penalty'"),
        ({"nonsense": None}, "unsupported_field", "'nonsense'"),
        ({"return_token_ids": True}, "unsupported_field", "'return_token_ids'"),
        ({"temperature": "hot"}, "invalid_request", "'temperature'"),
        ({"temperature": -1}, "invalid_request", "'temperature'"),
        ({"temperature": 0.001}, "invalid_request", "'temperature'"),
        ({"top_p": 0}, "invalid_request", "'top_p'"),
        ({"max_tokens": 0}, "invalid_request", "'max_tokens'"),
        ({"max_tokens": 2.5}, "invalid_request", "'max_tokens'"),
        ({"max_tokens": True}, "invalid_request", "'max_tokens'"),
        ({"max_tokens": 10_000}, "context_length_exceeded", "512"),
        ({"n": 1000}, "invalid_request", "'n'"),
        ({"seed": 2**70}, "invalid_request", "'seed'"),
        ({"stop": [""]}, "invalid_request", "'stop'"),
        ({"stream_options": {"include_usage": True}}, "invalid_request", "streams"),
        ({"model": "other"}, "model_not_found", "'small'"),
        ({"prompt": ["a", "b"]}, "invalid_request", "list of prompts"),
        ({"prompt": [1, 999_999]}, "invalid_request", "Token ids"),
        ({"prompt": ""}, "invalid_request", "no tokens"),
        ({"prompt": "x" * 600}, "context_length_exceeded", "600"),
        ({"prompt": None}, "invalid_request", "'prompt'"),
    ],
)
def test_refused_requests(tap: TapProcess, fields: dict[str, Any], code: str, named: str) -> None:
    before = len(tap.records())
    response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", **fields})
    status, found, message = _error(response)
    assert (status, found) == (404 if code == "model_not_found" else 400, code)
    assert named in message
    assert len(tap.records()) == before  # nothing was forwarded, so no counter was taken


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": NaN}',
        b"[" * 9999,
    ],
)
def test_bodies_that_are_no_request(tap: TapProcess, body: bytes) -> None:
    for path in ("completions", "chat/completions"):
        assert _error(httpx.post(f"{tap.url}/v1/{path}", content=body))[:2] == (400, "invalid_request")


@pytest.mark.parametrize(
    "messages",
    [[], "hi", [{"role": "robot", "content": "x"}], [{"role": "user"}], [{"role": "user", "content": ["x"]}],
     [{"role": "user", "content": "x", "name": "y"}], None],
)  # fmt: skip
def test_messages_that_are_none(tap: TapProcess, messages: object) -> None:
    response = httpx.post(f"{tap.url}/v1/chat/completions", json={"messages": messages})
    assert _error(response)[:2] == (400, "invalid_request")


def test_fields_without_effect_may_be_present(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    fields: dict[str, Any] = {"presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": None, "n": 1,
              "echo": False, "best_of": 1, "logit_bias": {}, "suffix": None, "top_k": -1,
              "max_tokens": None}  # fmt: skip
    response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", **fields})
    assert response.status_code == 200
    assert not (set(fields) - {"max_tokens", "n"}) & set(upstream.requests[-1])


def test_large_bodies(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    body = json.dumps({"prompt": "x" * (1 << 20)}).encode()
    assert _error(httpx.post(f"{tap.url}/v1/completions", content=body))[:2] == (413, "body_too_large")

    def pieces() -> Any:
        for _ in range(40):
            yield b"x" * 50_000

    try:
        response = httpx.post(f"{tap.url}/v1/completions", content=pieces())
        assert _error(response)[:2] == (413, "body_too_large")
    except httpx.TransportError:
        pass  # the tap closed while we were still sending, which is its right
    below = json.dumps({"prompt": "y" * 100_000}).encode()
    assert _error(httpx.post(f"{tap.url}/v1/completions", content=below))[:2] == (
        400,
        "context_length_exceeded",
    )


def _talk(tap: TapProcess, *pieces: bytes, pause: float = 0.0) -> bytes:
    host, port = tap.url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            while data := connection.recv(65536):
                received += data
        except ConnectionError:
            pass
    return received


def test_heads_without_measure(tap: TapProcess) -> None:
    lines = b"".join(b"x-%d: y\r\n" % index for index in range(100_000))
    for answer in (
        _talk(tap, b"GET /health HTTP/1.1\r\n" + lines),
        _talk(tap, b"GET /health HTTP/1.1\r\nx: " + b"y" * 200_000),
        _talk(tap, b"GET /" + b"y" * 200_000),
        _talk(tap, b"nonsense\r\n\r\n"),
        _talk(tap, b"POST /v1/completions HTTP/1.1\r\ncontent-length: -5\r\n\r\n"),
        _talk(tap, b"POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
    ):
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"Traceback" not in answer
    assert httpx.get(f"{tap.url}/health").status_code == 200


def test_slow_clients_are_cut_off(tap: TapProcess) -> None:
    began = time.monotonic()
    assert _talk(tap, b"POST /v1/comp") == b""
    head = b"POST /v1/completions HTTP/1.1\r\ncontent-length: 100\r\n\r\n{"
    assert _talk(tap, head).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert time.monotonic() - began < 8


def test_pipelined_requests(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    body = b'{"prompt": "a"}'
    one = b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    last = one.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
    assert _talk(tap, one + one + last).count(b"HTTP/1.1 200 OK") == 3


def test_too_many_requests_at_once(tmp_path: Path) -> None:
    async def hang(exchange: Exchange) -> None:
        await exchange.until_closed()

    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, max_active=1, grace=1) as tap:
        upstream.behaviour = hang
        host, port = tap.url.removeprefix("http://").split(":")
        body = b'{"prompt": "a"}'
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\ncontent-length: 15\r\n\r\n" + body)
            while not upstream.requests:
                time.sleep(0.01)
            response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"})
            assert _error(response)[:2] == (503, "overloaded")
        upstream.behaviour = lambda exchange: exchange.answer([0])
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"}).status_code == 200:
                break
        else:
            pytest.fail("the place was not given back")
        assert tap.stop()[0] == 0


def test_the_tap_imports_neither_torch_nor_the_model() -> None:
    code = (
        "import sys, ullage.tap.run\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers', 'tokenizers', 'scipy')"
        " or m.startswith(('ullage.model', 'ullage.server', 'ullage.audit'))]\n"
        "print(bad)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
