"""One side of a TCP connection: what it has sent, what of that is acknowledged, what it may still answer.

Times are seconds, offsets count from the SYN: data begin at 1, the FIN takes one.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import chain

from ullage.network.frames import Reason

CONSTANT_WINDOW = 65535
TAP_REACTION = 2.0  # seconds that frames of the server may wait for the cap before the tap sees them
_REACTION = 1.0  # seconds that a busy server may take to react to what it has received
_UNAWARE = 2.0  # ... and to read an acknowledgement, since its timers may run when little else does
_RETRANSMISSION_WAIT = 0.15  # Linux waits for at least 0.2 s; captures and timers are not exact
_KEPT_BYTES = 1 << 17  # acknowledged bytes that a late repetition is compared with
_DUPLICATES = 3
_MODULUS = 1 << 32


@dataclass
class Run:
    """A run of bytes that one segment carried."""

    start: int
    end: int
    time: float
    """Of its last passage."""
    acknowledged: float = 0.0
    """When, if it is."""


@dataclass
class Half:
    """What one side has sent."""

    initial: int
    time: float
    """Of the SYN."""
    reaction: float = _REACTION
    """Between a segment of the other side and the acknowledgements that it is a cause of."""
    next: int = 1
    acked: int = 1
    """By the other side."""
    acked_time: float = 0.0
    fin: int | None = None
    """Offset of the FIN."""
    identification: int | None = None
    sent: deque[Run] = field(default_factory=deque)
    """Not acknowledged yet."""
    past: deque[Run] = field(default_factory=deque)
    """Acknowledged lately: the side may not know."""
    kept: bytearray = field(default_factory=bytearray)
    """The last bytes before `next`."""
    sent_time: float = 0.0
    """Of the last data."""
    credits: int = 0
    """Segments of the other side that one pure acknowledgement each may answer."""
    fresh_credits: int = 0
    """Those of them that came since this side last acknowledged something new."""
    duplicates: int = 0
    """Repeated acknowledgements that this side has received."""
    recover: int = 0
    """A repetition that had a cause brings those of everything below this offset …"""
    recover_since: float = 0.0
    """… once, after this time."""
    choice_bits: float = 0.0

    @property
    def last_progress(self) -> float:
        """When this side last sent data, or the other side last said that it has more of them."""
        return max(self.sent_time, self.acked_time)

    @property
    def is_finished(self) -> bool:
        """Whether all that this side had to say is acknowledged."""
        return self.fin is not None and self.acked > self.fin

    def offset(self, sequence: int) -> int:
        """A sequence number as an offset near `next`."""
        near = self.next
        return near + ((sequence - self.initial - near + _MODULUS // 2) % _MODULUS) - _MODULUS // 2

    # --- what the other side says of it -----------------------------------------------------------

    def check_acknowledgement(self, acknowledged: int) -> Reason | None:
        """Only ends of segments can be acknowledged, never less than before, never what was not sent."""
        if acknowledged == self.acked or any(run.end == acknowledged for run in self.sent):
            return None
        return Reason.ACKNOWLEDGEMENT

    def acknowledge(self, acknowledged: int, time: float, alone: bool) -> bool:
        """Note an explained acknowledgement by the other side; whether it says anything new."""
        if acknowledged == self.acked:
            self.duplicates += alone and bool(self.sent)
            return False
        while self.sent and self.sent[0].end <= acknowledged:
            run = self.sent.popleft()
            run.acknowledged = time
            self.past.append(run)
        self._forget(time)
        self.acked, self.acked_time, self.duplicates = acknowledged, time, 0
        return True

    # --- what it sends ------------------------------------------------------------------------------

    def check_placement(self, payload: bytes, start: int, *, fin: bool, time: float) -> Reason | None:
        """Data follow what was sent before, or repeat it with a cause."""
        end = start + len(payload)
        if start == self.next and self.fin is None:
            return Reason.SEQUENCE if end - self.acked > CONSTANT_WINDOW else None
        last = self.next - (1 if self.fin is not None else 0)
        if start < 1 or end > last or (fin and (self.fin is None or end != self.fin)):
            return Reason.SEQUENCE
        first_kept = last - len(self.kept)
        if start < first_kept or self.kept[start - first_kept : end - first_kept] != payload:
            return Reason.REWRITTEN
        return self._check_repetition(start, end + fin, time)

    def _check_repetition(self, start: int, end: int, time: float) -> Reason | None:
        """Whole segments, one or several as one, that are not known to have come, a while after the last
        time or since acknowledgements ask for them."""
        self._forget(time)
        repeated = self._runs(start, end)
        if not repeated or repeated[0].start != start or repeated[-1].end != end:
            return Reason.RETRANSMISSION
        waited = time - max(run.time for run in repeated) >= _RETRANSMISSION_WAIT
        asked = self.duplicates >= _DUPLICATES and end > self.acked
        return None if waited or asked or self._is_recovering(repeated) else Reason.RETRANSMISSION

    def carry(self, payload: bytes, start: int, *, fin: bool, time: float) -> bytes:
        """Remember explained data and FIN; the payload if it had not been seen."""
        self.sent_time = time
        end = start + len(payload) + fin
        if start != self.next:
            self._repeat(self._runs(start, end), time)
            return b""
        self.sent.append(Run(start, end, time))
        self.kept += payload
        if len(self.kept) > 2 * _KEPT_BYTES:
            del self.kept[:-_KEPT_BYTES]
        self.next = end
        if fin:
            self.fin = end - 1
        return payload

    def _repeat(self, repeated: list[Run], time: float) -> None:
        if not self._is_recovering(repeated):
            self.recover, self.recover_since, self.duplicates = self.next, time, 0
        for run in repeated:
            run.time = time

    def _is_recovering(self, repeated: list[Run]) -> bool:
        return repeated[0].start < self.recover and max(run.time for run in repeated) < self.recover_since

    def _runs(self, start: int, end: int) -> list[Run]:
        return [run for run in chain(self.past, self.sent) if run.start < end and run.end > start]

    def _forget(self, time: float) -> None:
        while self.past and time - self.past[0].acknowledged >= _UNAWARE:
            self.past.popleft()

    # --- what it may answer ---------------------------------------------------------------------------

    def lapse(self) -> None:
        """What it had not answered before it last said something new it will not answer any more."""
        self.credits = self.fresh_credits

    def earn(self) -> None:
        """A segment of the other side came, which may be answered once."""
        self.credits += 1
        self.fresh_credits += 1

    def spend(self, says_new: bool, alone: bool) -> None:
        """It has acknowledged."""
        self.credits -= alone
        self.fresh_credits = 0 if says_new else max(0, self.fresh_credits - alone)

    # --- what it could have chosen ----------------------------------------------------------------------

    def repetition_bits(self) -> float:
        """Where a repetition begins, and where it ends."""
        return 2 * math.log2(1 + len(self.sent) + len(self.past))
