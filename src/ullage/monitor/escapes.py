"""Bytes written one by one: percent, backslash, entity, quoted-printable, and lists of numbers.

Escapes are ordinary in source and in URLs. A stretch is a payload when it escapes what needs no escape (ASCII
letters and digits), or when its bytes look drawn at random.
"""

from __future__ import annotations

import math
import operator
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from ullage.monitor.natural import Bytes
from ullage.monitor.recognise import RANDOM, recognise
from ullage.monitor.runs import find_runs, members

_MOST_BYTES: Final = 1 << 20
_LEAST: Final = 10
_LEAST_REGION: Final = 24  # bytes; the shortest stretch of each pattern is longer
_PLAIN: Final = (string.ascii_letters + string.digits).encode()
_LOW: Final = bytes(range(128))
_SIGNS: Final = np.zeros(256, np.bool_)
_SIGNS[list(b"0123456789abcdefABCDEFxuUX%=&#;,:- \\{}'\"+\r\n\t")] = True


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes `start` … `end`-1 of the text that decode to `payload`."""

    encoding: str
    start: int
    end: int
    payload: bytes


def _hex_pairs(text: bytes) -> bytes:
    return bytes(int(pair, 16) for pair in re.findall(rb"(?:%|=|0x|\\x)([0-9A-Fa-f]{2})", text))


def _separated_pairs(text: bytes) -> bytes:
    return bytes.fromhex(re.sub(rb"[^0-9A-Fa-f]", b"", text).decode())


def _octal(text: bytes) -> bytes:
    return bytes(int(digits, 8) & 255 for digits in re.findall(rb"\\([0-7]{3})", text))


def _binary(text: bytes) -> bytes:
    return bytes(int(digits, 2) for digits in re.findall(rb"[01]{8}", text))


def _code_points(values: Iterator[int]) -> bytes:
    """Characters up to 255 as bytes, wider ones as UTF-16, so that either use of escapes is bytes again."""
    points = list(values)
    if all(point < 256 for point in points):
        return bytes(points)
    return b"".join(min(point, 0x10FFFF).to_bytes(3 if point > 0xFFFF else 2, "big") for point in points)


def _unicode(text: bytes) -> bytes:
    found = re.findall(rb"\\u\{?([0-9A-Fa-f]{4,6})|\\U([0-9A-Fa-f]{8})", text)
    return _code_points(int(short or long, 16) for short, long in found)


def _entities(text: bytes) -> bytes:
    found = re.findall(rb"&#(?:([0-9]{1,7})|x([0-9A-Fa-f]{1,6}));", text)
    return _code_points(int(decimal) if decimal else int(digits, 16) for decimal, digits in found)


def _decimal(text: bytes) -> bytes | None:
    values = [int(digits) for digits in re.findall(rb"[0-9]{1,3}", text)]
    return bytes(values) if max(values) < 256 else None


_UUID = re.compile(rb"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b")
_PATTERNS: Final[tuple[tuple[str, bytes, re.Pattern[bytes], Callable[[bytes], bytes | None]], ...]] = (
    ("uuid", b"-", _UUID, _separated_pairs),
    ("percent", b"%", re.compile(rb"(?:%[0-9A-Fa-f]{2}){10,}"), _hex_pairs),
    ("quoted-printable", b"=", re.compile(rb"(?:=[0-9A-F]{2}(?:=\r?\n)?){10,}"), _hex_pairs),
    ("backslash-x", b"\\x", re.compile(rb"(?:\\x[0-9A-Fa-f]{2}(?:['\"\s+b]{0,12}(?=\\x))?){10,}"), _hex_pairs),  # noqa: E501
    ("backslash-u", b"\\", re.compile(rb"(?:\\u[0-9A-Fa-f]{4}|\\u\{[0-9A-Fa-f]{1,6}\}|\\U[0-9A-Fa-f]{8}){10,}"), _unicode),  # noqa: E501
    ("octal", b"\\", re.compile(rb"(?:\\[0-7]{3}){10,}"), _octal),
    ("entities", b"&#", re.compile(rb"(?:&#(?:[0-9]{1,7}|x[0-9A-Fa-f]{1,6});){10,}"), _entities),
    ("hex-bytes", b"0x", re.compile(rb"(?:0[xX][0-9A-Fa-f]{2}[uU]?[,;\s]{1,12}){9,}0[xX][0-9A-Fa-f]{2}\b"), _hex_pairs),  # noqa: E501
    ("decimal-bytes", b",", re.compile(rb"\b(?:[0-9]{1,3},[ \r\n\t]{0,12}){11,}[0-9]{1,3}\b"), _decimal),
    ("decimal-bytes", b" ", re.compile(rb"\b(?:[0-9]{1,3} ){11,}[0-9]{1,3}\b"), _decimal),
    ("hex-pairs", b"", re.compile(rb"\b[0-9A-Fa-f]{2}(?:([ :-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){9,}\b"), _separated_pairs),  # noqa: E501
    ("hex-groups", b" ", re.compile(rb"\b(?:[0-9A-Fa-f]{4} ){6,}[0-9A-Fa-f]{4}\b"), _separated_pairs),
    ("hex-groups", b" ", re.compile(rb"\b(?:[0-9A-Fa-f]{8} ){3,}[0-9A-Fa-f]{8}\b"), _separated_pairs),
    ("binary", b"0", re.compile(rb"\b[01]{8}(?:[\s,]{0,3}[01]{8}){5,}\b"), _binary),
)  # fmt: skip


def find_escaped(data: bytes, array: Bytes) -> Iterator[Stretch]:
    """All stretches of escapes and lists that hold a payload, by pattern and place.

    The patterns run over the regions alone that have nothing but their signs: a small part of most texts.
    """
    starts, ends = find_runs(members(array, _SIGNS), _LEAST_REGION)
    if not len(starts):
        return
    regions = b"\0".join(data[start:end] for start, end in zip(starts, ends, strict=True))
    origins = np.concatenate([[0], np.cumsum(ends - starts + 1)])[:-1]
    for name, sign, pattern, decode in _PATTERNS:
        if sign and sign not in regions:
            continue
        for match in pattern.finditer(regions):
            payload = _decoded(decode, match.group()[: 8 * _MOST_BYTES])
            if payload and (name == "uuid" or is_payload(payload)) and not _is_chart(name, payload):
                region = int(np.searchsorted(origins, match.start(), side="right")) - 1
                shift = int(starts[region] - origins[region])
                yield Stretch(name, match.start() + shift, match.end() + shift, payload)


def _decoded(decode: Callable[[bytes], bytes | None], text: bytes) -> bytes | None:
    try:
        return decode(text)
    except ValueError:
        return None


def is_payload(payload: bytes) -> bool:
    """Whether bytes that were escaped are more than an ordinary use of escapes."""
    size = min(len(payload), 4096)
    plain = size - len(payload[:4096].translate(None, _PLAIN))
    if plain >= 8 and plain > 0.5 * size and not _is_sequence(payload[:4096]):
        return True
    return looks_random(payload) or (size >= 16 and recognise(payload) not in (RANDOM, "text"))


def _is_chart(name: str, payload: bytes) -> bool:
    """Groups of four digits that are code points of a few blocks, as tables of characters have."""
    tops = payload[::2]
    return name == "hex-groups" and len(set(tops)) < 0.7 * min(len(tops), 100)


def looks_random(payload: bytes) -> bool:
    """Whether bytes spread as drawn ones do: few repeated, about half of them high, no order.

    Of 12 uniform bytes 98 % pass, of 16 and more 99 %. Tables of numbers, ramps and masks do not.
    """
    sample = payload[:4096]
    size = len(sample)
    if size < _LEAST:
        return False
    expected = 256 * (1 - (1 - 1 / 256) ** size)
    high = len(sample.translate(None, _LOW)) / size
    rises = sum(map(operator.lt, sample, sample[1:])) / (size - 1)
    spread = max(0.2, min(0.35, 2 / math.sqrt(size)))  # four standard deviations of a share of one half
    balanced = abs(high - 0.5) <= spread and abs(rises - 0.5) <= spread
    return balanced and len(set(sample)) >= 0.85 * expected


def _is_sequence(sample: bytes) -> bool:
    steps = sum(abs(one - other) <= 1 for one, other in pairwise(sample))
    return steps > 0.5 * (len(sample) - 1)
