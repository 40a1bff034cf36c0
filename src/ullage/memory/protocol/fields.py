"""Fields of a message, to and from bytes: what the messages of the memory protocol are made of."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import fields
from enum import IntEnum
from typing import Any, ClassVar, Protocol, Self

from ullage.errors import MalformedError

MAX_TEXT_BYTES = 255


class Reader:
    """Takes fields off the front of a body; every one may fail."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def raw(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise MalformedError("A memory message is shorter than its fields.")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.raw(size), "big")

    def text(self) -> str:
        size = self.number(2)
        if size > MAX_TEXT_BYTES:
            raise MalformedError(f"A text in a memory message has at most {MAX_TEXT_BYTES} bytes.")
        try:
            text = self.raw(size).decode()
        except UnicodeDecodeError as error:
            raise MalformedError("A text in a memory message is not UTF-8.") from error
        if not text.isprintable():  # it is printed: a terminal would obey it
            raise MalformedError("A text in a memory message has characters that cannot be printed.")
        return text

    def limited(self, size: int, low: int, high: int, what: str) -> int:
        value = self.number(size)
        if not low <= value <= high:
            raise MalformedError(f"{what} is {value} in a memory message; it lies between {low} and {high}.")
        return value

    def end(self) -> None:
        if self._at != len(self._data):
            raise MalformedError("A memory message has bytes left over.")


class Codec(Protocol):
    """One field: its bytes, and its value back from them."""

    def write(self, value: Any) -> bytes: ...
    def read(self, reader: Reader) -> Any: ...


class Number:
    """An unsigned integer of `size` bytes, between `low` and `high` when it is read."""

    def __init__(self, size: int, what: str = "a number", low: int = 0, high: int | None = None) -> None:
        self._size, self._what, self._low = size, what, low
        self._high = (1 << 8 * size) - 1 if high is None else high

    def write(self, value: int) -> bytes:
        return value.to_bytes(self._size, "big")

    def read(self, reader: Reader) -> int:
        return reader.limited(self._size, self._low, self._high, self._what)


class Behind:
    """Another field, behind bytes that are always the same; `missing` says what their absence means."""

    def __init__(self, constant: bytes, codec: Codec, missing: str) -> None:
        self._constant, self._codec, self._missing = constant, codec, missing

    def write(self, value: Any) -> bytes:
        return self._constant + self._codec.write(value)

    def read(self, reader: Reader) -> Any:
        if reader.raw(len(self._constant)) != self._constant:
            raise MalformedError(self._missing)
        return self._codec.read(reader)


class Flag(Number):
    """One byte, 0 or 1."""

    def __init__(self, what: str) -> None:
        super().__init__(1, what, 0, 1)

    def read(self, reader: Reader) -> bool:
        return bool(super().read(reader))


class Choice(Number):
    """One byte that is a member of an enumeration, which counts from 1."""

    def __init__(self, members: type[IntEnum], what: str) -> None:
        super().__init__(1, what, 1, max(members))
        self._members = members

    def read(self, reader: Reader) -> Any:
        return self._members(super().read(reader))


class Raw:
    """`size` bytes as they are."""

    def __init__(self, size: int) -> None:
        self._size = size

    def write(self, value: bytes) -> bytes:
        return value

    def read(self, reader: Reader) -> bytes:
        return reader.raw(self._size)


class Text:
    """UTF-8 after its length, cut to what a message may hold."""

    def write(self, value: str) -> bytes:
        data = value.encode()[:MAX_TEXT_BYTES].decode(errors="ignore").encode()
        return struct.pack(">H", len(data)) + data

    def read(self, reader: Reader) -> str:
        return reader.text()


class Row:
    """Some fields one after the other, as a tuple or as what `make` makes of them."""

    def __init__(self, *codecs: Codec, make: type[Any] | None = None) -> None:
        self._codecs = codecs
        self._make = make

    def write(self, value: Any) -> bytes:
        values = [getattr(value, one.name) for one in fields(value)] if self._make else value
        return b"".join(codec.write(one) for codec, one in zip(self._codecs, values, strict=True))

    def read(self, reader: Reader) -> Any:
        values = tuple(codec.read(reader) for codec in self._codecs)
        return self._make(*values) if self._make else values


class Table:
    """Many of one field after their count."""

    def __init__(self, count: Number, entry: Codec) -> None:
        self._count, self._entry = count, entry

    def write(self, value: Sequence[Any]) -> bytes:
        return self._count.write(len(value)) + b"".join(map(self._entry.write, value))

    def read(self, reader: Reader) -> tuple[Any, ...]:
        return tuple(self._entry.read(reader) for _ in range(self._count.read(reader)))


class Numbers:
    """Many u32 after their count, at most `most`."""

    def __init__(self, what: str, most: int) -> None:
        self._count = Number(4, what, 0, most)

    def write(self, value: Sequence[int]) -> bytes:
        return self._count.write(len(value)) + struct.pack(f">{len(value)}I", *value)

    def read(self, reader: Reader) -> tuple[int, ...]:
        count = self._count.read(reader)
        return struct.unpack(f">{count}I", reader.raw(4 * count))


class Message:
    """Base of the messages, which are dataclasses: a kind, and a codec for each field in order."""

    kind: ClassVar[int]
    layout: ClassVar[tuple[Codec, ...]] = ()

    def body(self) -> bytes:
        names = [one.name for one in fields(self)]  # type: ignore[arg-type]  # every message is a dataclass
        return b"".join(
            codec.write(getattr(self, name)) for codec, name in zip(self.layout, names, strict=True)
        )

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(*(codec.read(reader) for codec in cls.layout))
