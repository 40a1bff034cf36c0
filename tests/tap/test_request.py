"""The request schema: canonical form, defaults, and bodies that nobody would send by accident."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tap.small_tokenizer import CONTEXT, VOCABULARY, small_tokenizer
from ullage.log.record import Parameters
from ullage.tap.clients.request import CompletionRequest, Endpoint, parse_request, upstream_body
from ullage.tap.failures import RequestRefusedError

TOKENIZER = small_tokenizer()


def parse(endpoint: Endpoint = "completions", **fields: Any) -> CompletionRequest:
    return parse_request(endpoint, json.dumps(fields).encode(), "small", TOKENIZER)


def test_defaults() -> None:
    request = parse(prompt="ab")
    assert (request.temperature, request.top_p, request.top_k) == ("1.0", "1.0", 0)
    assert (request.max_tokens, request.choices, request.stream, request.stop) == (256, 1, False, ())
    assert parse(prompt="a" * (CONTEXT - 10)).max_tokens == 10


@settings(deadline=None)
@given(st.floats(0.01, 2) | st.just(0.0), st.floats(0, 1, exclude_min=True))
def test_sampling_values_survive_the_record(temperature: float, top_p: float) -> None:
    request = parse(prompt="a", temperature=temperature, top_p=top_p)
    recorded = Parameters(**request.parameters())
    assert (float(recorded.temperature), float(recorded.top_p)) == (temperature, top_p)
    asked = json.loads(upstream_body(request, 5, "small"))
    assert (asked["temperature"], asked["top_p"]) == (temperature, top_p)


def test_an_integer_is_the_same_number() -> None:
    assert parse(prompt="a", temperature=1).digest() == parse(prompt="a", temperature=1.0).digest()


encodable = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["\x00", "\x1f", "\x7f", "\u2028", '"', "\\", "/", "\b\f\n\r\t", "😀"]
)
requests = st.builds(
    CompletionRequest,
    endpoint=st.sampled_from(["chat", "completions"]),
    prompt_ids=st.lists(st.integers(0, 2**31)).map(tuple),
    temperature=st.floats(0, 2).map(repr),
    top_p=st.floats(0, 1).map(repr),
    top_k=st.integers(0, 2**31),
    max_tokens=st.integers(1, 2**31),
    stop=st.lists(encodable).map(tuple),
    choices=st.integers(1, 16),
    stream=st.booleans(),
    include_usage=st.booleans(),
    client_seed=st.none() | st.integers(-(2**63), 2**63 - 1),
)


@settings(deadline=None)
@given(requests)
def test_the_canonical_request_is_that_of_the_rfc(request: CompletionRequest) -> None:
    written = request.canonical()
    assert written == rfc8785.dumps(json.loads(written))
    assert json.loads(written) == {
        "version": 1,
        "endpoint": request.endpoint,
        "prompt_ids": list(request.prompt_ids),
        "parameters": {**request.parameters(), "stop": list(request.stop)},
        "n": request.choices,
        "stream": request.stream,
        "client_seed": None if request.client_seed is None else str(request.client_seed),
    }


@pytest.mark.parametrize("asked", [0, -1, VOCABULARY, VOCABULARY + 5])
def test_top_k_that_filters_nothing_is_off(asked: int) -> None:
    request = parse(prompt="a", top_k=asked)
    assert request.top_k == 0
    assert b"top_k" not in upstream_body(request, 5, "small")


def test_digest_tells_requests_apart() -> None:
    variants: list[dict[str, Any]] = [
        {}, {"prompt": "b"}, {"temperature": 0.5}, {"top_p": 0.5}, {"top_k": 5}, {"max_tokens": 7},
        {"stop": "x"}, {"stop": ["x", "y"]}, {"n": 2}, {"stream": True}, {"seed": 1}, {"seed": 0},
    ]  # fmt: skip
    digests = {parse(**{"prompt": "a", **variant}).digest() for variant in variants}
    assert len(digests) == len(variants)
    assert parse(prompt="a", presence_penalty=0, model="small").digest() == parse(prompt="a").digest()


def test_both_names_of_the_limit() -> None:
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
    assert parse("chat", **chat, max_completion_tokens=5).max_tokens == 5
    assert parse("chat", **chat, max_completion_tokens=5, max_tokens=5).max_tokens == 5
    with pytest.raises(RequestRefusedError, match="differ"):
        parse("chat", **chat, max_completion_tokens=5, max_tokens=6)
    with pytest.raises(RequestRefusedError, match="max_completion_tokens"):
        parse(prompt="a", max_completion_tokens=5)


@pytest.mark.parametrize("value", [False, [], "0", 0.5])
def test_without_effect_is_of_the_right_type(value: object) -> None:
    with pytest.raises(RequestRefusedError, match="presence_penalty"):
        parse(prompt="a", presence_penalty=value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["prompt", "messages", "max_tokens", "temperature", "top_p", "top_k", "n", "seed", "stop", "stream",
     "stream_options", "model", "tools", "logit_bias", "logprobs", "max_completion_tokens"]
) | st.text()  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["chat", "completions"]), st.dictionaries(names, json_values, max_size=6))
def test_any_object_is_read_or_refused(endpoint: Endpoint, fields: dict[str, Any]) -> None:
    try:
        request = parse_request(endpoint, json.dumps(fields).encode(), "small", TOKENIZER)
    except RequestRefusedError as error:
        status = error.failure.status
    else:
        status = 200
        assert 0 < len(request.prompt_ids) + request.max_tokens <= CONTEXT
        Parameters(**request.parameters())
    assert status in (200, 400, 404)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(RequestRefusedError):
        parse_request("completions", body, "small", TOKENIZER)
