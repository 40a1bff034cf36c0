"""Reads clients' answers in order: each text alone, and after the end of what the client got before.

What neither of two messages shows, both together may: a payload dealt out in shreds is charged once enough of
them stand together.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Final

from ullage.monitor.finding import Seen
from ullage.monitor.limits import Limits
from ullage.monitor.scanner import scan

_TAIL: Final = 2048  # characters of a client's earlier answers that new ones are read after
_MOST_TAILS: Final = 10_000
_LIMITS: Final = Limits(depth=6, decoded_bytes=4 << 20, findings=1000)


class Reader:
    """Remembers the end of what each client got, for the last 10,000 clients."""

    def __init__(self) -> None:
        self._tails: OrderedDict[str, str] = OrderedDict()

    def read(self, client: str, released: bytes) -> list[Seen]:
        """What each text of a response's body held; `released` is JSON or a stream of events."""
        return [self._read(client, text) for text in texts_of(released)]

    def _read(self, client: str, text: str) -> Seen:
        tail = self._tails.pop(client, "")
        report = scan(text, _LIMITS)
        bits = report.payload_bits
        if tail and not bits:
            joined, before = scan(f"{tail}\n{text}", _LIMITS), scan(tail, _LIMITS)
            bits = max(0, joined.payload_bits - before.payload_bits)
        self._tails[client] = "" if report.findings else f"{tail}\n{text}"[-_TAIL:]
        if len(self._tails) > _MOST_TAILS:
            self._tails.popitem(last=False)
        return Seen(bits, tuple(sorted({f"{one.encoding}/{one.kind}" for one in report.findings})))


def texts_of(released: bytes) -> list[str]:
    """The text of each choice in a response of the OpenAI API, whole or as a stream of events.

    What is neither is taken as it is, so that no spelling escapes the monitor.
    """
    if released.lstrip()[:1] == b"{":
        documents = [released]
    else:
        lines = (line[5:].strip() for line in released.splitlines() if line.startswith(b"data:"))
        documents = [line for line in lines if line != b"[DONE]"]
    joined: dict[int, list[str]] = {}
    known = False
    for data in documents:
        pieces = _pieces_of(data)
        known = known or pieces is not None
        for index, piece in pieces or ():
            joined.setdefault(index, []).append(piece)
    if not known:
        return [released.decode("utf-8", "replace")]
    return ["".join(pieces) for _, pieces in sorted(joined.items())]


def _pieces_of(document: bytes) -> list[tuple[int, str]] | None:
    """Text by choice in one JSON document; None when it is no answer (an error, an event cut off)."""
    try:
        found = []
        for choice in json.loads(document)["choices"]:
            part = choice.get("message") or choice.get("delta") or {}
            piece = choice.get("text") or part.get("content") or ""
            if isinstance(piece, str):
                found.append((int(choice.get("index", 0)), piece))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found
