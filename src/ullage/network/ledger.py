"""Who accounts for a connection's bytes: the journal's entries, compared with what the cable carried.

Header bytes of a connection are overhead once the tap has entered it in its journal; payload is a record's
once an exchange entry with the same digest names a record that allows it and determines its content.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

from ullage.network.content import Answer, undetermined
from ullage.network.frames import Reason
from ullage.network.journal import ExchangeEntry, Totals
from ullage.network.streams import Stream
from ullage.network.tcp import Connection
from ullage.network.windows import Tallies


class Records(Protocol):
    """What the ledger asks of the log."""

    def knows(self, counter: int) -> bool: ...

    def charge(self, counter: int, sent: int, received: int) -> Answer | None: ...


class NoRecords:
    """No log: nothing is explained by it."""

    def knows(self, counter: int) -> bool:
        return True

    def charge(self, counter: int, sent: int, received: int) -> Answer | None:
        return None


@dataclass
class Account:
    """One connection: its state, its streams, the overhead that waits for the journal."""

    began: float
    tcp: Connection
    to_server: Stream = field(default_factory=Stream)
    from_server: Stream = field(default_factory=Stream)
    overhead: Counter[int] = field(default_factory=Counter)  # window: bytes
    overhead_frames: int = 0
    number: int | None = None  # in the journal
    exchanges: deque[ExchangeEntry] = field(default_factory=deque)
    closed: bool = False  # the journal has seen its end

    @property
    def done(self) -> bool:
        """Whether nothing of it waits for anything any more."""
        streams = (self.to_server, self.from_server)
        return self.closed and not self.exchanges and all(one.taken == one.total for one in streams)

    @property
    def confirmed(self) -> bool:
        """Whether overhead needs no waiting: the tap knows the connection, or nobody ever answered it."""
        return self.number is not None or self.tcp.server is None

    def add_overhead(self, window: int, size: int, tallies: Tallies) -> None:
        """Book header bytes of an explained segment, now or when the journal names the connection."""
        if self.number is not None:
            tallies.at(window).overhead += size
        else:
            self.overhead[window] += size
            self.overhead_frames += 1

    def confirm(self, tallies: Tallies) -> None:
        """The connection is the tap's: its headers so far are overhead."""
        for window, size in self.overhead.items():
            tallies.at(window).overhead += size
        self.overhead.clear()

    def settle(self, records: Records, tallies: Tallies) -> None:
        """Decide every exchange whose bytes and record are there."""
        while self.exchanges:
            entry = self.exchanges[0]
            arrived = (
                self.to_server.total >= entry.sent.bytes and self.from_server.total >= entry.received.bytes
            )
            if not arrived or not records.knows(entry.counter):
                return
            self.exchanges.popleft()
            self._decide(entry, records, tallies)
        if self.closed:  # no entry will follow: what none has named is named by none
            self._write_off(Reason.PAYLOAD, tallies)

    def finish(self, records: Records, tallies: Tallies) -> None:
        """Nothing more will come: what is still pending is unexplained, or overhead nobody answered."""
        self.settle(records, tallies)
        if self.confirmed:
            self.confirm(tallies)
        for window, size in self.overhead.items():
            tallies.unexplained(window, size, Reason.NOT_JOURNALED, 0)
        tallies.frames_by_reason[Reason.NOT_JOURNALED] += self.overhead_frames if self.overhead else 0
        self.overhead.clear()
        self._write_off(Reason.PAYLOAD if not self.exchanges else Reason.RECORD, tallies)

    def _write_off(self, why: Reason, tallies: Tallies) -> None:
        """All that is pending is unexplained."""
        for stream in (self.to_server, self.from_server):
            _, _, _, shares = stream.take(stream.total)
            for window, size in shares:
                tallies.unexplained(window, size, why)

    def _decide(self, entry: ExchangeEntry, records: Records, tallies: Tallies) -> None:
        sizes = entry.sent.bytes - self.to_server.taken, entry.received.bytes - self.from_server.taken
        if min(sizes) < 0:
            return  # a total that falls explains nothing; the bytes stay for `finish`
        sent, received = (
            self._matches(self.to_server, entry.sent),
            self._matches(self.from_server, entry.received),
        )
        answer = records.charge(entry.counter, *sizes) if sent.agrees and received.agrees else None
        for part in (sent, received):
            if answer is None:
                reason = Reason.RECORD if sent.agrees and received.agrees else Reason.DIGEST
                for window, size in part.shares:
                    tallies.unexplained(window, size, reason)
        if answer is None:
            return
        free = undetermined(received.data, answer, received.time) if received.data else 0
        for part, surplus in ((sent, 0), (received, free)):
            _book(part.shares, surplus, tallies)

    @staticmethod
    def _matches(stream: Stream, totals: Totals) -> _Taken:
        data, digest, time, shares = stream.take(totals.bytes)
        return _Taken(data, digest == totals.digest, time, shares)


@dataclass
class _Taken:
    """Bytes of an exchange in one direction, and whether the journal's digest is theirs."""

    data: bytes
    agrees: bool
    time: float
    shares: list[tuple[int, int]]


def _book(shares: list[tuple[int, int]], surplus: int, tallies: Tallies) -> None:
    """Give windows their bytes, the last `surplus` of them as content that the record does not determine."""
    for window, size in reversed(shares):
        free = min(surplus, size)
        surplus -= free
        if free:
            tallies.unexplained(window, free, Reason.CONTENT)
        tallies.at(window).record += size - free
