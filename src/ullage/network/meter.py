"""The meter: every frame of a link is a record's, derivable overhead, a heartbeat, or unexplained.

Feed it frames in the order of the cable, and what the tap's journal and log say; `finish` closes the books.
No input or output here: `monitor` reads a live link, `pcap` a file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from ullage.network.frames import Arp, FrameReader, Reason, Segment, direction_of
from ullage.network.heartbeat import Heartbeat
from ullage.network.journal import CloseEntry, Entry, ExchangeEntry, HeaderEntry, OpenEntry
from ullage.network.ledger import Account, NoRecords, Records
from ullage.network.link import Link
from ullage.network.tcp import SYN, Accepted, Connection
from ullage.network.windows import Tallies, WorstWindow, window_of

_ARP_INTERVAL = 0.9  # Linux asks once a second
_CLOCK_SLACK = 0.1  # seconds between the kernel's stamps of frames and the journal's clock
MAX_ACCOUNTS = 100_000
_VLAN_TAG_BYTES = 4


@dataclass
class Counts:
    """Frames and bytes of one direction."""

    frames: int = 0
    bytes: int = 0


class Meter:
    """Attributes the bytes of one link."""

    def __init__(
        self, link: Link, records: Records | None = None, heartbeat: Heartbeat | None = None
    ) -> None:
        self.link = link
        self.heartbeat = heartbeat
        self.tallies = Tallies()
        self.to_server, self.from_server = Counts(), Counts()
        self.worst_to_server, self.worst_from_server = WorstWindow(), WorstWindow()
        self.choice_bits = 0.0  # of the server's side, of connections that are over
        self.first_time: float | None = None
        self.last_time = 0.0
        self._reader = FrameReader(link)
        self._records = records or NoRecords()
        self._live: dict[int, Account] = {}  # by the tap's port
        self._ended: defaultdict[int, list[Account]] = defaultdict(list)  # still waiting for the journal
        self._waiting = 0  # how many those are
        self._by_number: dict[int, Account] = {}
        self._early: dict[int, list[Entry]] = {}  # by number: entries whose connection was not seen yet
        self._now = 0.0  # of the newest frame
        self._arp: dict[tuple[bool, bool], float] = {}

    # --- the cable -----------------------------------------------------------------------------

    def feed(
        self, frame: bytes, time: float, from_server: bool | None = None, *, tagged: bool = False
    ) -> None:
        """Account for one frame seen at `time`.

        `from_server`: on which side it came in, if the capture knows. `tagged`: the capture has taken a VLAN
        tag off.
        """
        side = direction_of(frame, self.link) if from_server is None else from_server
        size = len(frame) + (_VLAN_TAG_BYTES if tagged else 0)
        self._count(side, size, time)
        window = window_of(time)
        if self.heartbeat is not None and not side and self.heartbeat.check(frame, time):
            self.tallies.at(window).heartbeat += size
            return
        found = Reason.VLAN if tagged else self._reader.read(frame)
        if not isinstance(found, Reason) and found.from_server is not side:
            found = Reason.MAC
        if isinstance(found, Segment):
            self._feed_segment(found, window, time)
        elif isinstance(found, Arp):
            self._feed_arp(found, window, time)
        else:
            self.tallies.unexplained(window, size, found)

    def lost(self, size: int, frames: int, time: float) -> None:
        """Count bytes that the interface carried and the capture did not show: unexplained."""
        window = window_of(time)
        self.tallies.at(window).total += size
        self.tallies.unexplained(window, size, Reason.UNSEEN, frames)

    def _count(self, side: bool, size: int, time: float) -> None:
        counts, worst = (
            (self.from_server, self.worst_from_server) if side else (self.to_server, self.worst_to_server)
        )
        counts.frames += 1
        counts.bytes += size
        worst.add(time, size)
        self.tallies.at(window_of(time)).total += size
        self.first_time = time if self.first_time is None else self.first_time
        self.last_time = max(self.last_time, time)
        self._now = time

    def _feed_arp(self, arp: Arp, window: int, time: float) -> None:
        """A request a second and side is needed at most; a reply only after the other side's request."""
        key = (arp.from_server, arp.reply)
        last = self._arp.get(key)
        needed = last is None or time - last >= _ARP_INTERVAL
        if arp.reply:
            asked = self._arp.get((not arp.from_server, False))
            needed = asked is not None and (last is None or last < asked)
        if not needed:
            self.tallies.unexplained(window, arp.size, Reason.ARP)
            return
        self._arp[key] = time
        self.tallies.at(window).overhead += arp.size

    def _feed_segment(self, segment: Segment, window: int, time: float) -> None:
        account = self._account(segment, time)
        if account is None:
            self.tallies.unexplained(window, segment.size, Reason.CONNECTION)
            return
        verdict = account.tcp.offer(segment, time)
        if not isinstance(verdict, Accepted):
            self.tallies.unexplained(window, segment.size, verdict)
            return
        new = len(verdict.new)
        account.add_overhead(window, segment.size - new, self.tallies)
        if not new:
            return
        stream = account.from_server if segment.from_server else account.to_server
        stream.add(verdict.new, window, time)
        if stream.overflow:
            self.tallies.unexplained(window, new, Reason.OVERFLOW)
        account.settle(self._records, self.tallies)

    def _account(self, segment: Segment, time: float) -> Account | None:
        """The connection of a segment; a SYN of the tap's opens one, nothing of the server's ever does."""
        account = self._live.get(segment.tap_port)
        opens = segment.flags & SYN and not segment.from_server
        if account is not None and not (opens and account.tcp.left_for(segment)):
            return account
        if not opens or len(self._live) + self._waiting >= MAX_ACCOUNTS:
            return account
        if account is not None:
            self._retire(segment.tap_port, account)
        self._live[segment.tap_port] = account = Account(time, Connection(self.link.mtu))
        return account

    # --- the journal ---------------------------------------------------------------------------

    def note(self, entry: Entry) -> None:
        """Take an entry of the wire journal.

        A capture hands frames over later than the tap writes of them. So entries of a connection that was
        not seen wait until it is, or until a frame has come that is later than its beginning can have been.
        """
        if isinstance(entry, HeaderEntry):
            return
        if entry.connection in self._early:
            self._early[entry.connection].append(entry)
        elif isinstance(entry, OpenEntry):
            self._early[entry.connection] = [entry]
            self._look_again(entry.connection)
        else:
            self._note_known(entry)

    def _look_again(self, number: int, ended: bool = False) -> None:
        """At early entries. `ended`: no frame will follow."""
        opening, *others = self._early[number]
        assert isinstance(opening, OpenEntry)  # noqa: S101 - `note` begins each list with it
        waiting = not ended and self._now <= _latest_start(opening)
        if self._name(opening, waiting=waiting) or not waiting:
            del self._early[number]
            for entry in others:
                self._note_known(entry)

    def _note_known(self, entry: Entry) -> None:
        account = None if isinstance(entry, HeaderEntry) else self._by_number.get(entry.connection)
        if account is not None and isinstance(entry, ExchangeEntry):
            account.exchanges.append(entry)
            account.settle(self._records, self.tallies)
        elif account is not None and isinstance(entry, CloseEntry):
            account.closed = True

    def _name(self, entry: OpenEntry, *, waiting: bool) -> bool:
        """Whether there is nothing to wait for: the connection was seen, or is not of this link.

        An answered one that nobody has named, the latest of this port. While frames may be on their way it
        could be an earlier one that is over.
        """
        host, port = entry.local
        if host != self.link.tap.address or entry.remote != (self.link.server.address, self.link.port):
            return True
        candidates = [*self._ended.get(port, ()), *([self._live[port]] if port in self._live else ())]
        for account in reversed(candidates):
            if account.began > _latest_start(entry) or account.number is not None:
                continue
            if account.tcp.server is not None and not (waiting and account.tcp.ended):
                account.number = entry.connection
                self._by_number[entry.connection] = account
                account.confirm(self.tallies)
                return True
        return False

    def settle(self) -> None:
        """Look again at what waits for frames or for the log, and forget what waits for nothing."""
        for number in list(self._early):
            self._look_again(number)
        for number, account in list(self._by_number.items()):
            account.settle(self._records, self.tallies)
            if account.done:
                del self._by_number[number]
        for port, accounts in list(self._ended.items()):
            kept = [one for one in accounts if not one.done]
            self._waiting -= len(accounts) - len(kept)
            if kept:
                self._ended[port] = kept
            else:
                del self._ended[port]

    # --- the end -------------------------------------------------------------------------------

    def finish(self) -> None:
        """Close the books: what nothing has explained by now stays unexplained."""
        for number in list(self._early):
            self._look_again(number, ended=True)
        for port, account in list(self._live.items()):
            self._retire(port, account)
        for accounts in self._ended.values():
            for account in accounts:
                account.finish(self._records, self.tallies)
        self._ended.clear()

    def _retire(self, port: int, account: Account) -> None:
        self._live.pop(port, None)
        if account.tcp.server is None:  # nobody answered: no journal will ever name it
            account.finish(self._records, self.tallies)
            return
        self._ended[port].append(account)
        self._waiting += 1
        self.choice_bits += account.tcp.server.choice_bits

    @property
    def reasons(self) -> Counter[str]:
        """Unexplained bytes by reason."""
        return self.tallies.bytes_by_reason


def _latest_start(entry: OpenEntry) -> float:
    """When the connection of an entry can have begun at the latest: seconds of the capture's clock."""
    return entry.time / 1e9 + _CLOCK_SLACK
