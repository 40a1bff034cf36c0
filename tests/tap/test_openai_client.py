"""The unmodified `openai` client through the tap, and what the records say afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream, text_ids
from tests.tap.small_tokenizer import EOS, small_tokenizer
from tests.tap.tap_process import TapProcess
from ullage.log.keys import load_tap_keys
from ullage.sampling.seeds import issue_seed
from ullage.tap.clients.request import parse_request

TEXT = "Hello, wörld! Good day."


@pytest.fixture
def client(tap: TapProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{tap.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_plain_completion(client: openai.OpenAI, tap: TapProcess, upstream: ScriptedUpstream) -> None:
    answer = client.completions.create(
        model="small", prompt="Say hello", temperature=0.7, top_p=0.9, seed=5, extra_body={"top_k": 40}
    )
    assert answer.choices[0].text == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("Say hello")
    assert answer.usage.completion_tokens == len(text_ids(TEXT)) + 1
    record = tap.closed()
    asked = upstream.requests[-1]
    assert asked == {
        "prompt": text_ids("Say hello"), "max_tokens": 256, "temperature": 0.7,
        "top_p": 0.9, "top_k": 40, "n": 1, "seed": record.open.seed, "stream": False,
        "return_token_ids": True,
    }  # fmt: skip
    assert record.open.client_seed == 5 != record.open.seed
    assert record.open.prompt_sources == ((9, "client"),)
    assert record.open.parameters.temperature == "0.7"
    assert record.close is not None
    assert record.close.outcome == "complete"
    assert record.close.upstream_fingerprint == "scripted-1"
    assert record.close.output_ids == (*text_ids(TEXT), EOS)
    assert answer.model_extra == {
        "ullage": {"records": [{"counter": str(record.counter), "seed": str(record.open.seed)}]}
    }


def test_seed_is_the_keyed_function_of_the_request(client: openai.OpenAI, tap: TapProcess) -> None:
    client.completions.create(model="small", prompt="a")
    record = tap.closed()
    request = parse_request("completions", b'{"prompt": "a"}', "small", small_tokenizer())
    assert record.open.request_digest == "sha256:" + request.digest().hex()
    key = load_tap_keys(tap.keys).seed
    log_id = tap.reader().header.log_id
    assert record.open.seed == issue_seed(key, log_id, record.counter, request.digest())
    client.completions.create(model="small", prompt="a")
    assert tap.closed().open.seed != record.open.seed


def test_plain_body_is_on_record_to_the_byte(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", "max_tokens": 3})
    close = tap.closed().close
    assert close is not None
    assert close.released_digest == "sha256:" + hashlib.sha256(response.content).hexdigest()
    assert close.bytes_to_client == len(response.content)
    assert close.finish_reason == "length"
    assert set(response.headers) == {"content-type", "content-length"}
    assert response.content.startswith(b'{"id":"cmpl-')
    assert (close.bytes_to_upstream or 0) > 100
    assert (close.bytes_from_upstream or 0) > 100


def test_chat(client: openai.OpenAI, tap: TapProcess, upstream: ScriptedUpstream) -> None:
    answer = client.chat.completions.create(
        model="small", messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    )
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].message.role == "assistant"
    assert answer.id.startswith("chatcmpl-")
    prompt = upstream.requests[-1]["prompt"]
    assert prompt == [3, *text_ids("Be kind."), EOS, 1, *text_ids("Hi"), EOS, 2]
    # The answer can be sent back as it came.
    message: Any = answer.choices[0].message.model_dump(exclude_unset=True)
    again = client.chat.completions.create(
        model="small", messages=[message, {"role": "user", "content": "x"}]
    )
    assert again.choices[0].finish_reason == "stop"


def test_streamed_chat(client: openai.OpenAI, tap: TapProcess, upstream: ScriptedUpstream) -> None:
    stream = client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "Hi"}], stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    events = list(stream)
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text == TEXT
    roles = [event.choices[0].delta.role for event in events if event.choices]
    assert roles[0] == "assistant"
    assert not any(roles[1:])
    assert [event.choices[0].finish_reason for event in events if event.choices][-1] == "stop"
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens == len(text_ids(TEXT)) + 1
    record = tap.closed()
    assert events[-1].model_extra is not None
    assert events[-1].model_extra["ullage"]["records"][0]["seed"] == str(record.open.seed)
    assert record.close is not None
    assert tuple(token for chunk in record.chunks for token in chunk.output_ids) == record.close.output_ids


def test_stream_bytes_are_those_of_the_chunks(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", "stream": True})
    record = tap.closed()
    assert record.close is not None
    assert record.close.released_digest == "sha256:" + hashlib.sha256(response.content).hexdigest()
    assert record.close.bytes_to_client == len(response.content)
    rest = response.content
    for chunk in record.chunks:
        assert chunk.digest == "sha256:" + hashlib.sha256(rest[: chunk.bytes]).hexdigest()
        rest = rest[chunk.bytes :]
    assert rest == b"data: [DONE]\n\n"


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices(tap: TapProcess, upstream: ScriptedUpstream, stream: bool) -> None:
    async def by_seed(exchange: Exchange) -> None:
        await exchange.answer([*text_ids(str(exchange.body["seed"])), EOS])

    upstream.behaviour = by_seed
    before = len(tap.records())
    with openai.OpenAI(base_url=f"{tap.url}/v1", api_key="unused", max_retries=0) as client:
        texts = ["", "", ""]
        if stream:
            for event in client.completions.create(model="small", prompt="a", n=3, stream=True):
                for choice in event.choices:
                    texts[choice.index] += choice.text
        else:
            answer = client.completions.create(model="small", prompt="a", n=3)
            texts = [choice.text for choice in answer.choices]
    records = [tap.closed(before + index) for index in range(3)]
    assert texts == [str(record.open.seed) for record in records]
    assert len({record.open.seed for record in records}) == 3
    assert [record.open.choice for record in records] == [0, 1, 2]
    assert {record.open.group for record in records} == {before}
    assert {record.close and record.close.outcome for record in records} == {"complete"}
    assert len({record.close and record.close.released_digest for record in records}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_stop_string(tap: TapProcess, upstream: ScriptedUpstream, stream: bool) -> None:
    with openai.OpenAI(base_url=f"{tap.url}/v1", api_key="unused", max_retries=0) as client:
        if stream:
            events = list(client.completions.create(model="small", prompt="a", stop="rld!", stream=True))
            text = "".join(event.choices[0].text for event in events)
            reason = events[-1].choices[0].finish_reason
        else:
            answer = client.completions.create(model="small", prompt="a", stop=["rld!", "zzz"])
            text, reason = answer.choices[0].text, answer.choices[0].finish_reason
    assert (text, reason) == ("Hello, wö", "stop")


def test_nothing_of_the_upstream_passes(tap: TapProcess, upstream: ScriptedUpstream) -> None:
    async def chatty(exchange: Exchange) -> None:
        ids = [*text_ids("ok"), EOS]
        choice = {
            "index": 7,
            "text": "SECRET",
            "token_ids": ids,
            "finish_reason": "SECRET",
            "logprobs": "SECRET",
        }
        body = {"id": "SECRET", "model": "SECRET", "choices": [choice], "usage": "SECRET", "created": 99,
                "system_fingerprint": "SECRET" * 100}  # fmt: skip
        data = json.dumps(body).encode()
        await exchange.raw(
            b"HTTP/1.1 200 SECRET\r\nx-secret: SECRET\r\nset-cookie: SECRET\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data) + data
        )

    upstream.behaviour = chatty
    response = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"})
    assert response.status_code == 200
    assert b"SECRET" not in response.content
    assert not any("SECRET" in value for value in response.headers.values())
    close = tap.closed().close
    assert close is not None
    assert close.upstream_fingerprint is not None
    assert len(close.upstream_fingerprint) == 256


def test_models_list(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "small"


def test_connections_are_reused(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    client.completions.create(model="small", prompt="a")
    before = upstream.connections
    for _ in range(5):
        client.completions.create(model="small", prompt="a")
    assert upstream.connections == before
