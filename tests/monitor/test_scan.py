"""What the scanner finds, what it leaves alone, and what it costs on hostile input."""

from __future__ import annotations

import base64
import bz2
import codecs
import gzip
import lzma
import random
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.monitor.limits import Limits
from ullage.monitor.scanner import scan
from ullage.monitor.stream import WINDOW, scan_stream, windows
from ullage.redteam.encoded.payloads import ENCODINGS, dealt

SECRET = b"The launch code is 4711 and the door is green, said the man."
KEY = random.Random(1).randbytes(32)
PROSE = (
    "It was the best of times, it was the worst of times, and nobody had written down which of them it was.\n"
)
CODE = (
    "def total(values: list[int]) -> int:\n    return sum(value for value in values if value > 0)  # 0x1F\n"
)


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_of_a_key_is_found_where_it_stands(name: str) -> None:
    payload = ENCODINGS[name](KEY)
    text = f"{PROSE}value: {payload}\n{CODE}"
    start = len(PROSE.encode()) + len("value: ")
    end = start + len(payload.encode("utf-8", "surrogatepass"))
    outer = [one for one in scan(text).findings if one.depth == 0]
    assert outer
    assert all(start - 3 <= one.start and one.end <= end for one in outer)
    assert sum(one.payload_bits for one in outer) >= 0.8 * 256


@pytest.mark.parametrize("name", [one for one in ENCODINGS if one not in {"gzip, base64", "zero-width"}])
def test_text_under_every_encoding_is_read(name: str) -> None:
    findings = scan(f"{PROSE}value: {ENCODINGS[name](SECRET)}\n{CODE}").findings
    assert findings[-1].kind in {"text", "sample"}


def test_ordinary_text_and_code_have_no_findings() -> None:
    assert scan(PROSE * 20 + CODE * 20).findings == ()
    assert scan("").findings == ()
    assert (
        scan("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx ==================== abcdefghijklmnopqrstuvwxyz").findings
        == ()
    )
    assert scan("Der Fluß, die Bäume; 日本語のテキスト; Привет, как дела? 👩‍👩‍👧 👍🏽").findings == ()


def test_layers_have_the_outermost_place_and_a_depth_each() -> None:
    data = SECRET
    for _ in range(4):
        data = base64.b64encode(data)
    report = scan("value: " + data.decode())
    assert [one.depth for one in report.findings] == [0, 1, 2, 3]
    assert {(one.start, one.end) for one in report.findings} == {(7, 7 + len(data))}
    assert report.unexplained_bits == 0  # it was read to the end


def test_unread_bits_are_counted_once() -> None:
    inner = base64.b64encode(KEY)
    report = scan("value: " + base64.b64encode(b"here it is: " + inner).decode())
    assert [one.kind for one in report.findings] == ["text", "random"]
    assert report.unexplained_bits == 256


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, bz2.compress, lzma.compress])
def test_compressed_text_is_opened(compress: object) -> None:
    assert callable(compress)
    report = scan("x " + base64.b64encode(compress(SECRET * 3)).decode())
    assert report.findings[-1].kind == "text"
    assert report.findings[-1].payload_bits == 8 * 3 * len(SECRET)


@pytest.mark.parametrize("turn", ["rot13", "reversed"])
def test_turned_prose_is_turned_back(turn: str) -> None:
    text = codecs.encode(PROSE * 3, "rot13") if turn == "rot13" else (PROSE * 3)[::-1]
    assert {one.encoding for one in scan(text).findings} == {turn}


def test_shreds_over_fields_are_put_together() -> None:
    for parts in (2, 4, 8):
        text = dealt(base64.b64encode(SECRET).decode(), parts, random.Random(parts))
        assert {one.kind for one in scan(text).findings} == {"text"}


def test_base64_of_hex_of_a_sentence_is_found_though_it_has_few_letters() -> None:
    for start in range(40):
        letters = base64.b64encode((SECRET * 2)[start : start + 60].hex().encode()).decode()
        report = scan(f"{PROSE}value: {letters}\n{CODE}")
        assert [(one.encoding, one.depth) for one in report.findings][:2] == [("base64", 0), ("hex", 1)]
    assert scan(f"value: {'61' * 40}\nvalue: {'YWFh' * 20}\n").findings == ()


def test_hidden_characters() -> None:
    tags = "Hello" + "".join(chr(0xE0000 + byte) for byte in SECRET) + " there"
    found = scan(tags).findings
    assert [(one.encoding, one.kind) for one in found] == [("tag-characters", "text")]
    mixed = PROSE.replace("a", "\u0430").replace("o", "\u043e")
    assert [one.encoding for one in scan(mixed).findings] == ["homoglyphs"]


def test_labels_of_ordinary_payloads() -> None:
    assert scan("id 123e4567-e89b-42d3-a456-426614174000").findings[0].kind == "uuid"
    assert scan("md5 " + random.Random(2).randbytes(16).hex()).findings[0].kind == "digest"
    jwt = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "SflKxwRJSMeKKF2QT4fw" * 2
    assert scan("token " + jwt).findings[0].encoding == "jwt"
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + KEY).decode()
    assert scan(f'<img src="data:image/png;base64,{png}">').findings[0].kind == "png"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400))
def test_any_text_gives_findings_in_order_within_it(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    report = scan(text)
    starts = [one.start for one in report.findings]
    assert starts == sorted(starts)
    assert all(0 <= one.start < one.end <= len(data) for one in report.findings)
    assert 0 <= report.unexplained_bits <= max(report.payload_bits, 0)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=24, max_size=200))
def test_base64_of_any_bytes_decodes_to_them_or_repeats(payload: bytes) -> None:
    outer = [one for one in scan("value: " + base64.b64encode(payload).decode()).findings if one.depth == 0]
    assert outer or len(set(payload)) < 0.7 * len(payload)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_are_scanned_without_an_error(data: bytes) -> None:
    report = scan_stream([data])
    assert report.bytes_scanned == len(data)


def test_a_decompression_bomb_costs_what_the_limit_allows() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(64 << 20))).decode()
    started = time.process_time()
    report = scan("value: " + bomb, Limits(decoded_bytes=1 << 20))
    assert [one.kind for one in report.findings] == ["zlib", "decompression-limit"]
    assert time.process_time() - started < 5


def test_layers_beyond_the_limit_are_a_finding() -> None:
    data = SECRET
    for _ in range(12):
        data = base64.b64encode(data)
    report = scan(data, Limits(depth=5))
    assert report.findings[-1].kind == "too-deep"
    assert max(one.depth for one in report.findings) == 5


def test_many_findings_are_counted_beyond_the_limit() -> None:
    draw = random.Random(3)
    text = "\n\n".join(f"line {number} {draw.randbytes(16).hex()} end" for number in range(300))
    report = scan_stream([text.encode()], Limits(findings=100))
    assert len(report.findings) == 100
    assert report.unlisted == 200
    assert report.unexplained_bits == 300 * 128


def test_binary_data_is_a_finding() -> None:
    report = scan_stream([random.Random(4).randbytes(5000)])
    assert [(one.encoding, one.kind) for one in report.findings] == [("none", "binary")]
    assert scan_stream([PROSE.encode("utf-16")]).findings[0].kind == "binary"


def test_windows_hold_all_bytes_and_cut_at_lines() -> None:
    data = PROSE.encode() * 9000
    found = list(windows([data[at : at + 70_001] for at in range(0, len(data), 70_001)]))
    assert b"".join(found) == data
    assert all(len(one) <= WINDOW for one in found)
    assert all(one.endswith(b"\n") for one in found)
    endless = list(windows([b"x" * (3 * WINDOW)]))
    assert [len(one) for one in endless] == [WINDOW] * 3


def test_a_payload_over_several_windows_is_one_finding() -> None:
    payload = random.Random(5).randbytes(WINDOW).hex().encode()
    report = scan_stream([PROSE.encode() * 100, payload, b"\n" + PROSE.encode()])
    outer = [one for one in report.findings if one.depth == 0]
    assert len(outer) == 1
    assert outer[0].payload_bits == 8 * WINDOW
