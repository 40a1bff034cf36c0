"""Public entries: one spelling each, fast and strict, and the examples of the format's page."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from tests.log.samples import NAME, chunk, closing, digest, header, opening
from tests.log.strategies import entries, parts
from ullage.errors import MalformedError, UsageError
from ullage.log.entries import (
    MAX_ENTRY_BYTES,
    ChunkEntry,
    CloseEntry,
    Entry,
    OpenEntry,
    VerdictEntry,
    encode_entry,
    entry_of,
    hand_over,
    parse_entry,
)
from ullage.log.notes.signed_note import NoteSigner
from ullage.log.record import HeaderPart, RecordPart

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "log.md"
OLD, NEW = NoteSigner(NAME, bytes(32)), NoteSigner(NAME, bytes([1]) * 32)


@given(entries)
def test_bytes_are_rfc_8785_and_come_back(entry: Entry) -> None:
    data = encode_entry(entry)
    assert data == rfc8785.dumps(json.loads(data))
    assert parse_entry(data) == entry
    assert len(data) <= MAX_ENTRY_BYTES


@given(parts)
def test_the_entry_of_a_part_is_well_formed_and_small(part: RecordPart) -> None:
    entry = entry_of(part, digest(b"payload"))
    assert entry.counter == part.counter
    assert parse_entry(encode_entry(entry)) == entry
    assert len(encode_entry(entry)) < 256


@given(entries, st.data())
def test_another_spelling_of_the_same_json_is_refused(entry: Entry, data: st.DataObject) -> None:
    sound = encode_entry(entry)
    value = json.loads(sound)
    spellings = [
        json.dumps(value).encode(),
        sound.replace(b'"part"', b'"\\u0070art"'),
        sound + b"\n",
        b" " + sound,
        b"\xef\xbb\xbf" + sound,
        sound.replace(b'"version":2', b'"version":2,"version":2'),
        sound.replace(b'"version":2', b'"version":2.0'),
        sound.replace(b'"version":2', b'"version":1'),
        sound.replace(b'"version":2', b'"vers\xc3\xb6on":2'),
        json.dumps(dict(reversed(value.items())), separators=(",", ":")).encode(),
    ]
    with pytest.raises(MalformedError):
        parse_entry(data.draw(st.sampled_from(spellings)))


@given(entries, st.data())
def test_a_changed_byte_is_refused_or_another_entry(entry: Entry, data: st.DataObject) -> None:
    sound = bytearray(encode_entry(entry))
    sound[data.draw(st.integers(0, len(sound) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = parse_entry(bytes(sound))
    except MalformedError:
        return
    assert found != entry
    assert encode_entry(found) == sound


@given(st.binary(max_size=300))
def test_any_bytes_are_an_entry_or_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_entry(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("counter", "07"),
        ("counter", "-1"),
        ("counter", str(1 << 63)),
        ("counter", "1" * 20),
        ("counter", 7),
        ("time_received", 12345678901),
        ("time_received", -1),
        ("time_received", 1.5),
        ("time_received", "1700000000"),
        ("prompt_tokens", None),
        ("stream", 1),
        ("commitment", "sha256:" + "A" * 64),
        ("commitment", "sha256:" + "a" * 63),
        ("part", "opening"),
        ("more", 1),
    ],
)
def test_an_open_that_is_not_exactly_right_is_refused(field: str, value: object) -> None:
    changed = json.loads(encode_entry(entry_of(opening(7), digest(b"x"))))
    changed[field] = value
    with pytest.raises(MalformedError):
        parse_entry(rfc8785.dumps(changed))


def test_the_largest_counter_is_read() -> None:
    entry = ChunkEntry(digest(b"x"), (1 << 63) - 1, 0)
    assert parse_entry(encode_entry(entry)) == entry


def test_an_entry_that_is_too_long_is_refused() -> None:
    with pytest.raises(MalformedError, match="at most"):
        parse_entry(b"x" * (MAX_ENTRY_BYTES + 1))


def test_times_are_whole_seconds() -> None:
    opened, closed = entry_of(opening(7), digest(b"x")), entry_of(closing(7, (1, 2)), digest(b"x"))
    assert isinstance(opened, OpenEntry)
    assert isinstance(closed, CloseEntry)
    assert (opened.time_received, opened.prompt_tokens, opened.stream) == (1_700_000_000, 3, False)
    assert (closed.time_closed, closed.output_tokens, closed.outcome) == (1_700_000_000, 2, "complete")
    assert entry_of(chunk(7, 3, (1,)), digest(b"x")) == ChunkEntry(digest(b"x"), 7, 3)


def test_a_handover_holds_for_its_log_place_and_keys_only() -> None:
    entry = hand_over(OLD, NEW.verifier, NAME, 5)
    assert entry.holds(NAME, 5)
    assert not entry.holds(NAME, 6)
    assert not entry.holds(NAME + "/other", 5)
    assert not entry._replace(new_key=str(OLD.verifier)).holds(NAME, 5)
    assert not entry._replace(old_key=str(NEW.verifier)).holds(NAME, 5)
    assert not entry._replace(old_key="nonsense").holds(NAME, 5)
    assert not entry._replace(signature="A" * 86 + "==").holds(NAME, 5)
    with pytest.raises(UsageError, match="ASCII"):
        hand_over(NoteSigner('tap"', bytes(32)), NEW.verifier, NAME, 5)


def test_the_examples_of_the_page_are_the_bytes() -> None:
    (block,) = re.findall(r"```json\n(.*?)\n```", PAGE.read_text("utf-8"), re.DOTALL)
    examples = [parse_entry(line.encode()) for line in block.splitlines()]
    assert [type(one) for one in examples] == [HeaderPart, OpenEntry, ChunkEntry, CloseEntry, VerdictEntry]


def test_a_header_keeps_what_it_declares() -> None:
    declared = header().model_copy(update={"reference_digest": digest(b"reference")})
    assert parse_entry(encode_entry(declared)) == declared


def test_parsing_is_fast_enough_for_millions() -> None:
    """A verifier needs 17,000 a second of everything; leave room for a busy machine."""
    data = encode_entry(entry_of(closing(12345, (1, 2)), digest(b"x")))
    started = time.perf_counter()
    for _ in range(20_000):
        parse_entry(data)
    assert 20_000 / (time.perf_counter() - started) > 50_000
