"""Reading answers: events survive any cut, and nothing but UpstreamError comes out of garbage."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.errors import UsageError
from ullage.tap.failures import UpstreamError
from ullage.tap.upstream.answer import EventReader, read_answer, read_event
from ullage.tap.upstream.connections import Address

payloads = st.lists(
    st.binary(min_size=1, max_size=30).filter(lambda data: not set(data) & set(b"\r\n")), max_size=5
)


@settings(deadline=None)
@given(payloads, st.sampled_from([b"\n", b"\r\n"]), st.data())
def test_events_survive_any_cut(expected: list[bytes], newline: bytes, data: st.DataObject) -> None:
    stream = b"".join(b": note" + newline + b"data: " + one + newline + newline for one in expected)
    reader = EventReader()
    found: list[bytes] = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert found == expected


def test_event_without_end() -> None:
    reader = EventReader()
    for _ in range(40):
        assert list(reader.feed(b"x" * 100_000)) == []
    with pytest.raises(UpstreamError, match="without end"):
        list(reader.feed(b"x" * 300_000))


def test_a_line_in_pieces_costs_its_length_once() -> None:
    """A server that sends a line byte by byte must not hold up the tap and all other answers."""
    reader = EventReader()
    began = time.process_time()
    for _ in range(400_000):
        assert list(reader.feed(b"x")) == []
    assert time.process_time() - began < 5  # looking through the whole line each time took minutes


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_garbage(data: bytes) -> None:
    for read in (read_answer, read_event):
        with pytest.raises(UpstreamError):
            read(data)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["choices", "token_ids", "prompt_token_ids", "error"]), inner)
        ),
        max_leaves=10,
    )
)
def test_any_json(value: Any) -> None:
    for read in (read_answer, read_event):
        try:
            delta = read(json.dumps(value).encode())
        except UpstreamError:
            continue
        assert all(type(token) is int for token in delta.ids)


def test_what_is_read() -> None:
    body: dict[str, Any] = {
        "choices": [{"token_ids": [1, 2], "prompt_token_ids": [3]}],
        "system_fingerprint": "f",
    }
    delta = read_answer(json.dumps(body).encode())
    assert (delta.ids, delta.prompt_ids, delta.fingerprint) == ([1, 2], [3], "f")
    body = {"choices": [{"text": ""}], "prompt_token_ids": [3]}
    assert read_event(json.dumps(body).encode()).prompt_ids == [3]
    assert read_event(b'{"choices": [], "usage": {}}').ids == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000", ("localhost", 8000, "", False)),
        ("http://localhost:8000/v1/", ("localhost", 8000, "", False)),
        ("https://example.org/base/v1", ("example.org", 443, "/base", True)),
        ("http://[::1]:80", ("::1", 80, "", False)),
    ],
)
def test_addresses(url: str, expected: tuple[str, int, str, bool]) -> None:
    address = Address.parse(url)
    assert (address.host, address.port, address.base, address.tls) == expected


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://u:p@x",
        "http://x/?q",
        "http://x/\r\ny",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(url)


def test_ids_beside_logprobs_are_taken_where_there_are_no_others() -> None:
    logprobs = {"content": [{"id": 5, "token": "a", "logprob": -1.0}, {"id": 7, "token": "b"}]}
    choice = {"index": 0, "text": "ab", "logprobs": logprobs}
    assert read_answer(json.dumps({"choices": [choice]}).encode()).ids == [5, 7]
    assert read_event(json.dumps({"choices": [{**choice, "token_ids": [9]}]}).encode()).ids == [9]


@pytest.mark.parametrize(
    "logprobs", [None, 3, {}, {"content": [7]}, {"content": [{"id": "5"}]}, {"content": 1}]
)
def test_logprobs_without_ids_are_no_ids(logprobs: object) -> None:
    body = json.dumps({"choices": [{"index": 0, "text": "ab", "logprobs": logprobs}]}).encode()
    with pytest.raises(UpstreamError):
        read_answer(body)
