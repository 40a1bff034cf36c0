"""A sign of life that the meter must see: frames of its own, each with a number and a tag under a fresh key.

They show that the capture was awake on this link. Nobody else can make one, none counts twice, and one that
comes from the server is false.
"""

from __future__ import annotations

import hmac
import secrets
import struct

from ullage.network.link import Link

ETHERTYPE = 0x88B5  # IEEE 802 local experimental 1
SIZE = 60
INTERVAL_SECONDS = 1.0
LONGEST_GAP_SECONDS = 5.0
FRESH_SECONDS = 2.5  # one heartbeat may be lost
_NUMBER = struct.Struct("!Q")
_TAG_BYTES = 16


class Heartbeat:
    """Makes heartbeats and recognises them."""

    def __init__(self, link: Link, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)
        self._head = link.server.mac_bytes + link.tap.mac_bytes + ETHERTYPE.to_bytes(2, "big")
        self._made = 0
        self._seen = 0
        self.last_time: float | None = None
        self.longest_gap = 0.0

    def make(self) -> bytes:
        """The next frame to send."""
        self._made += 1
        number = _NUMBER.pack(self._made)
        return (self._head + number + self._tag(number)).ljust(SIZE, b"\0")

    def check(self, frame: bytes, time: float) -> bool:
        """Whether a frame is a heartbeat that has not been seen before."""
        start = len(self._head)
        number = frame[start : start + _NUMBER.size]
        tag = frame[start + _NUMBER.size :][:_TAG_BYTES]
        rest = frame[start + _NUMBER.size + _TAG_BYTES :]
        if len(frame) != SIZE or frame[:start] != self._head or any(rest):
            return False
        (value,) = _NUMBER.unpack(number)
        if not hmac.compare_digest(tag, self._tag(number)) or value <= self._seen:
            return False
        self._seen = value
        self.gap_until(time)
        self.last_time = time
        return True

    def start(self, time: float) -> None:
        """From now on heartbeats are expected."""
        self.last_time = time

    def gap_until(self, time: float) -> None:
        """Note the silence between the last heartbeat and `time`."""
        if self.last_time is not None:
            self.longest_gap = max(self.longest_gap, time - self.last_time)

    def fresh(self, now: float) -> bool:
        """Whether one was seen lately: the capture is awake at this moment."""
        return self._seen > 0 and self.last_time is not None and now - self.last_time <= FRESH_SECONDS

    @property
    def alive(self) -> bool:
        """Whether heartbeats were seen without a long gap."""
        return self._seen > 0 and self.longest_gap <= LONGEST_GAP_SECONDS

    @property
    def seen(self) -> int:
        return self._seen

    def _tag(self, number: bytes) -> bytes:
        return hmac.digest(self._key, b"ullage wire heartbeat\0" + number, "sha256")[:_TAG_BYTES]
