"""What a reader does not see: zero-width characters, tags, selectors, letters of look-alike scripts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from ullage.monitor.escapes import Stretch

_LEAST: Final = 8
_GAP: Final = 256  # bytes between two signs of one payload, at most

# In UTF-8: U+200B-200F, U+2060-2064, U+FEFF, U+180E, U+00AD.
_ZERO_WIDTH = re.compile(rb"\xe2\x80[\x8b-\x8f]|\xe2\x81[\xa0-\xa4]|\xef\xbb\xbf|\xe1\xa0\x8e|\xc2\xad")
_TAGS = re.compile(rb"\xf3\xa0[\x80\x81][\x80-\xbf]")  # U+E0000-E007F
_SELECTORS = re.compile(rb"\xef\xb8[\x80-\x8f]|\xf3\xa0[\x84-\x87][\x80-\xbf]")  # U+FE00-FE0F, U+E0100-E01EF
_JOINERS = (b"\xe2\x80\x8c", b"\xe2\x80\x8d")  # ordinary between letters of some scripts, and in emoji
_MIXED = re.compile(r"[A-Za-z\u0370-\u052f\uff21-\uff5a]{2,}")
_OTHER_SCRIPT = re.compile(rb"[\xcd-\xd4][\x80-\xbf]|\xef\xbc[\xa1-\xba]|\xef\xbd[\x81-\x9a]")
_LEADS: Final = bytes((*range(0xCD, 0xD5), 0xEF))
_IS_LEAD: Final = bytes(byte in _LEADS for byte in range(256))
_NO_LEAD: Final = bytes(byte for byte in range(256) if byte not in _LEADS)
_REPLACEABLE: Final = frozenset("acehijopsxyABCEHIJKMNOPSTXYZ")


def find_invisible(data: bytes) -> Iterator[Stretch]:
    """Payloads in characters without a picture, and in look-alikes."""
    if b"\xe2\x80" in data or b"\xe2\x81" in data or b"\xef\xbb\xbf" in data or b"\xc2\xad" in data:
        yield from _zero_width(data)
    if b"\xf3\xa0" in data:
        yield from _tags(data)
    if b"\xef\xb8" in data or b"\xf3\xa0" in data:
        yield from _selectors(data)
    if data.translate(None, _NO_LEAD):
        yield from _homoglyphs(data)


def _groups(found: Sequence[re.Match[bytes]]) -> Iterator[Sequence[re.Match[bytes]]]:
    """Cut where the gap is wide; groups of fewer than `_LEAST` are left out."""
    first = 0
    for place in range(1, len(found) + 1):
        if place == len(found) or found[place].start() - found[place - 1].end() > _GAP:
            if place - first >= _LEAST:
                yield found[first:place]
            first = place


def _zero_width(data: bytes) -> Iterator[Stretch]:
    signs = [one for one in _ZERO_WIDTH.finditer(data) if not _is_ordinary(data, one)]
    for group in _groups(signs):
        values = [one.group() for one in group]
        yield Stretch("zero-width", group[0].start(), group[-1].end(), symbols_to_bytes(values))


def _is_ordinary(data: bytes, sign: re.Match[bytes]) -> bool:
    """Joiners after a letter of another script, soft hyphens within words, a mark at the very start."""
    before = data[sign.start() - 1] if sign.start() else 0
    if sign.group() in _JOINERS:
        return before >= 0x80 and not _ZERO_WIDTH.match(data, max(0, sign.start() - 3))
    if sign.group() == b"\xc2\xad":
        return chr(before).isalnum()
    return sign.group() == b"\xef\xbb\xbf" and sign.start() == 0


def symbols_to_bytes(values: Sequence[object]) -> bytes:
    """Bits of a sequence over two symbols, or digits over more, packed; what reads as text wins.

    With two symbols either may be the one-bit: the assignment that gives printable bytes is taken.
    """
    names = [name for name, _ in Counter(values).most_common(16)]
    if len(names) == 1:
        return bytes(max(1, len(values) // 8))
    width = max(1, math.ceil(math.log2(len(names))))
    best = b""
    for order in (names, names[::-1], sorted(names, key=repr), sorted(names, key=repr, reverse=True)):
        digit = {name: place for place, name in enumerate(order)}
        bits = "".join(format(digit[value], f"0{width}b") for value in values if value in digit)
        packed = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))
        if not best or _printable(packed) > _printable(best):
            best = packed
    return best or b"\0"


def _printable(data: bytes) -> int:
    return sum(32 <= byte < 127 for byte in data)


def _tags(data: bytes) -> Iterator[Stretch]:
    for group in _groups(list(_TAGS.finditer(data))):
        letters = bytes(ord(one.group().decode()) & 0x7F for one in group)
        yield Stretch("tag-characters", group[0].start(), group[-1].end(), letters)


def _selectors(data: bytes) -> Iterator[Stretch]:
    signs = [one for one in _SELECTORS.finditer(data) if not _follows_emoji(data, one)]
    for group in _groups(signs):
        values = [_selector_value(one.group()) for one in group]
        yield Stretch("variation-selectors", group[0].start(), group[-1].end(), bytes(values))


def _follows_emoji(data: bytes, sign: re.Match[bytes]) -> bool:
    before = data[max(0, sign.start() - 3) : sign.start()]
    is_presentation = sign.group() in (b"\xef\xb8\x8e", b"\xef\xb8\x8f")
    return is_presentation and bool(before) and before[-1] >= 0x80 and not _SELECTORS.match(before)


def _selector_value(sign: bytes) -> int:
    point = ord(sign.decode())
    return point - 0xFE00 if point < 0xFE10 else min(point - 0xE0100 + 16, 255)


def _homoglyphs(data: bytes) -> Iterator[Stretch]:
    """Words that mix Latin letters with look-alikes: one bit for each letter that has one."""
    leads = data.translate(_IS_LEAD)
    end = 0
    while (lead := leads.find(1, end)) >= 0:
        start = data.rfind(b"\n", end, lead) + 1 or end
        end = data.find(b"\n", lead)
        end = len(data) if end < 0 else end
        if not _OTHER_SCRIPT.search(data, lead, end):
            continue
        text = data[start : min(end, start + 65536)].decode("utf-8", "replace")
        bits, foreign = _letter_bits(text)
        if foreign >= _LEAST:
            packed = bytes(int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8))
            yield Stretch("homoglyphs", start, end, packed)


def _letter_bits(text: str) -> tuple[str, int]:
    bits: list[str] = []
    foreign = 0
    for word in _MIXED.findall(text):
        replaced = [sign for sign in word if sign > "\x7f"]
        if replaced and len(replaced) < len(word) and all(map(_looks_latin, replaced)):
            foreign += len(replaced)
        elif replaced:
            continue
        bits += ["1" if sign > "\x7f" else "0" for sign in word if sign > "\x7f" or sign in _REPLACEABLE]
    return "".join(bits), foreign


@lru_cache(maxsize=4096)
def _looks_latin(sign: str) -> bool:
    from confusable_homoglyphs import confusables

    return 0xFF21 <= ord(sign) <= 0xFF5A or bool(confusables.is_confusable(sign, preferred_aliases=["latin"]))
