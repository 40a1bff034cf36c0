"""From the letters of an encoding to its bytes: pure functions, None for what is not that encoding.

Decoding is lenient where people and models are (padding left out, upper and lower case) and nowhere else.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Final

_URL_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_BASE58: Final = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUES: Final = {sign: value for value, sign in enumerate(_BASE58)}
_MOST_BASE58: Final = 1024  # its arithmetic grows with the square
_Z85: Final = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_B85: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
AROUND: Final = b"'\"`,;()[]<>"  # what may stand around a payload of all signs and is no part of it
_Z85_TO_B85: Final = bytes.maketrans(_Z85, _B85)


def from_hex(run: bytes) -> bytes | None:
    """Pairs of hexadecimal digits."""
    try:
        return binascii.unhexlify(run)
    except ValueError:
        return None


def from_base64(run: bytes) -> bytes | None:
    """Standard or URL-safe, padded or not."""
    body = run.rstrip(b"=").translate(_URL_TO_STANDARD)
    if len(body) % 4 == 1 or not body:
        return None
    try:
        return binascii.a2b_base64(body + b"=" * (-len(body) % 4), strict_mode=True)
    except ValueError:
        return None


def from_base32(run: bytes) -> bytes | None:
    """RFC 4648, padded or not, either case."""
    body = run.rstrip(b"=")
    if len(body) % 8 in (1, 3, 6) or not body:
        return None
    try:
        return base64.b32decode(body + b"=" * (-len(body) % 8), casefold=True)
    except ValueError:
        return None


def from_base58(run: bytes) -> bytes | None:
    """Bitcoin's alphabet, without a check sum."""
    if len(run) > _MOST_BASE58:
        return None
    value = 0
    for sign in run:
        digit = _BASE58_VALUES.get(sign)
        if digit is None:
            return None
        value = value * 58 + digit
    zeros = len(run) - len(run.lstrip(b"1"))
    return b"\0" * zeros + value.to_bytes((value.bit_length() + 7) // 8, "big")


def from_ascii85(run: bytes) -> bytes | None:
    """Adobe's, with or without its brackets."""
    body = run.removeprefix(b"<~").removesuffix(b"~>")
    try:
        return base64.a85decode(body)
    except ValueError:
        return None


def from_base85(run: bytes) -> bytes | None:
    """The alphabet of git and RFC 1924."""
    try:
        return base64.b85decode(run)
    except ValueError:
        return None


def from_z85(run: bytes) -> bytes | None:
    """ZeroMQ's alphabet, a multiple of five characters."""
    if len(run) % 5 or set(run) - set(_Z85):
        return None
    return from_base85(run.translate(_Z85_TO_B85))


Decoder = Callable[[bytes], bytes | None]
_WORD: Final[tuple[tuple[str, Decoder], ...]] = (
    ("hex", from_hex),
    ("base32", from_base32),
    ("base64", from_base64),
    ("base58", from_base58),
)
_GRAPH: Final[tuple[tuple[str, Decoder], ...]] = (
    ("ascii85", from_ascii85),
    ("base85", from_base85),
    ("z85", from_z85),
)
_FIRST: Final = {"hex": "hex", "base32": "base32", "base58": "base58", "ascii85": "ascii85"}


def in_groups(run: bytes) -> bool:
    """Whether a run is whole groups of five letters in an alphabet of base85, each group below 2^32.

    Quotes, brackets and commas around it may be left out. Four bytes of payload make five letters, so all
    payloads of whole words are so; one in five of other runs has the length, and fewer have the letters.
    """
    bodies = {run, run.strip(AROUND)}
    return any(len(body) % 5 == 0 and any(decode(body) for _, decode in _GRAPH) for body in bodies if body)


def decodings(run: bytes, alphabet: str) -> Iterator[tuple[str, bytes]]:
    """Every (encoding, payload) that the run can be, likeliest first: forwards, then from its end."""
    table = _GRAPH if alphabet == "ascii85" else _WORD
    likely = _FIRST.get(alphabet, "base64")
    ordered = sorted(table, key=lambda one: one[0] != likely)
    for prefix, letters in (("", run), ("reversed-", run[::-1])):
        for name, decode in ordered:
            payload = decode(letters)
            if payload:
                yield prefix + name, payload
