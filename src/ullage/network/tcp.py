"""A strict model of one TCP connection: which segments follow from what both sides have already sent.

Both directions are seen at one point of the link. A segment is explained when every field of its headers is
fixed, or is determined by earlier segments, or is one of a few choices that RFC 9293 leaves to the sender;
the last are counted in `choice_bits`. Kernels are configured for it (`cable.CANONICAL_TCP`): no timestamps,
no selective acknowledgements, no scaling, a constant window. Times are seconds, offsets count from the SYN.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from ullage.network.frames import Reason, Segment

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
CONSTANT_WINDOW = 65535
_RETRANSMISSION_WAIT = 0.15  # Linux waits for at least 0.2 s; captures and timers are not exact
_CROSSING = 0.25  # seconds that a busy server may take to react to what it has received
TAP_DELAY = 2.0  # frames of the server may wait so long for the cap before the tap sees them
_KEPT_BYTES = 1 << 17  # acknowledged bytes that a late repetition is compared with
_HANDSHAKE_WAIT = 0.15
_DUPLICATES = 3
_MODULUS = 1 << 32


@dataclass
class _Sent:
    """A run of bytes that one segment carried and that is not acknowledged yet."""

    start: int
    end: int
    time: float


@dataclass
class Half:
    """What one side has sent. Offset 0 is the SYN, data begin at 1, the FIN takes one."""

    initial: int
    time: float  # of the SYN
    delay: float = _CROSSING  # of what the other side sends, between the meter and this side
    next: int = 1
    acked: int = 1  # by the other side
    acked_time: float = 0.0
    fin: int | None = None  # offset of the FIN
    identification: int | None = None
    sent: deque[_Sent] = field(default_factory=deque)
    kept: bytearray = field(default_factory=bytearray)  # the last bytes before `next`
    sent_time: float = 0.0  # of the last data
    credits: int = 0  # segments of the other side that one pure acknowledgement each may answer
    duplicates: int = 0  # repeated acknowledgements that this side has received
    recover: int = 0  # a retransmission that had a cause brings those of everything below this offset ...
    recover_since: float = 0.0  # ... once, after this time
    choice_bits: float = 0.0

    @property
    def last_time(self) -> float:
        """When this side last sent data, or the other side last said that it has more of them."""
        return max(self.sent_time, self.acked_time)

    def offset(self, sequence: int) -> int:
        """A sequence number as an offset near `next`."""
        near = self.next
        return near + ((sequence - self.initial - near + _MODULUS // 2) % _MODULUS) - _MODULUS // 2


@dataclass
class Accepted:
    """An explained segment. `new` are payload bytes that had not been seen, at `start` of the stream."""

    new: bytes = b""
    start: int = 0


class Connection:
    """The state of one connection; `offer` judges the next segment seen."""

    def __init__(self, mtu: int) -> None:
        self._mss = mtu - 40
        self._options = bytes((2, 4)) + self._mss.to_bytes(2, "big")
        self.tap: Half | None = None
        self.server: Half | None = None
        self.reset = False

    @property
    def ended(self) -> bool:
        """Whether no further data can follow."""
        tap, server = self.tap, self.server
        if self.reset:
            return True
        return bool(tap and server and _finished(tap) and _finished(server))

    def left_for(self, opening: Segment) -> bool:
        """Whether a SYN of the tap's begins another connection from the same port.

        Where nobody ever answered, the tap gives up without a word; its next attempt has another number.
        """
        given_up = self.tap is not None and self.server is None and opening.sequence != self.tap.initial
        return self.ended or given_up

    def offer(self, segment: Segment, time: float) -> Accepted | Reason:
        """Judge a segment and, if it is explained, remember it."""
        if segment.flags & ~(FIN | SYN | RST | PSH | ACK):
            return Reason.TCP_FLAGS
        if segment.flags & SYN:
            verdict: Accepted | Reason = self._offer_syn(segment, time)
        elif segment.options:
            verdict = Reason.TCP_OPTIONS
        elif segment.flags & RST:
            verdict = self._offer_reset(segment)
        else:
            verdict = self._offer_data(segment, time)
        if not isinstance(verdict, Accepted):
            self._skip(segment)
        elif segment.zero_checksum:
            self._count_spelling(segment)
        return verdict

    # --- the handshake -------------------------------------------------------------------------

    def _offer_syn(self, segment: Segment, time: float) -> Accepted | Reason:
        if segment.options != self._options:
            return Reason.TCP_OPTIONS
        if segment.window != CONSTANT_WINDOW:
            return Reason.TCP_WINDOW
        if segment.payload:
            return Reason.HANDSHAKE
        if not segment.from_server:
            return self._offer_first(segment, time)
        return self._offer_answer(segment, time)

    def _offer_first(self, segment: Segment, time: float) -> Accepted | Reason:
        if segment.flags != SYN or segment.acknowledgement or self.server:
            return Reason.HANDSHAKE
        if self.tap is None:
            self.tap = Half(segment.sequence, time, TAP_DELAY, identification=segment.identification)
            self.tap.choice_bits += 32 + 16  # initial sequence number, first identification
            return Accepted()
        if segment.sequence != self.tap.initial or time - self.tap.time < _HANDSHAKE_WAIT:
            return Reason.RETRANSMISSION
        return self._follow(self.tap, segment) or self._again(self.tap, time)

    def _offer_answer(self, segment: Segment, time: float) -> Accepted | Reason:
        tap = self.tap
        if tap is None or segment.flags != SYN | ACK or segment.identification:
            return Reason.HANDSHAKE
        if segment.acknowledgement != (tap.initial + 1) % _MODULUS:
            return Reason.ACKNOWLEDGEMENT
        if self.server is None:
            self.server = Half(segment.sequence, time)
            self.server.choice_bits += 32
            tap.credits = 1
            return Accepted()
        # Repeated until the tap's acknowledgement arrives.
        if segment.sequence != self.server.initial or time - self.server.time < _HANDSHAKE_WAIT:
            return Reason.RETRANSMISSION
        tap.credits = 1
        return self._again(self.server, time)

    def _again(self, half: Half, time: float) -> Accepted:
        half.time = time
        half.choice_bits += 1
        return Accepted()

    # --- data, acknowledgements, the end ----------------------------------------------------------

    def _offer_data(self, segment: Segment, time: float) -> Accepted | Reason:  # noqa: PLR0911
        own, peer = (self.server, self.tap) if segment.from_server else (self.tap, self.server)
        if own is None or peer is None or self.reset:
            return Reason.AFTER_END if self.reset else Reason.CONNECTION
        if not segment.flags & ACK or (segment.flags & PSH and not segment.payload):
            return Reason.TCP_FLAGS
        if segment.window != CONSTANT_WINDOW and not _is_last_word(own, segment):
            return Reason.TCP_WINDOW
        if len(segment.payload) > self._mss:
            return Reason.OVERSIZED
        start, acknowledged = own.offset(segment.sequence), peer.offset(segment.acknowledgement)
        refusal = _check_acknowledgement(peer, acknowledged)
        if refusal is not None:
            return refusal
        carries = bool(segment.payload) or bool(segment.flags & FIN)
        placed = (
            _check_placement(own, segment, start, time)
            if carries
            else _check_pure(own, peer, start, acknowledged, time)
        )
        refusal = placed or self._follow(own, segment)
        if refusal is not None:
            return refusal
        own.choice_bits += _choices(own, peer, segment, self._mss, start)
        _acknowledge(own, peer, acknowledged, time, carries)
        return _carry(own, peer, segment, start, time) if carries else Accepted()

    def _offer_reset(self, segment: Segment) -> Accepted | Reason:  # noqa: PLR0911
        own, peer = (self.server, self.tap) if segment.from_server else (self.tap, self.server)
        if peer is None or segment.payload or segment.flags & ~(RST | ACK):
            return Reason.TCP_FLAGS if peer else Reason.CONNECTION
        if segment.window not in (0, CONSTANT_WINDOW):
            return Reason.TCP_WINDOW
        if own is None:  # a closed port: answers the SYN
            expected = (0, (peer.initial + 1) % _MODULUS, RST | ACK, 0)
            found = (segment.sequence, segment.acknowledgement, segment.flags, segment.window)
            if found != expected:
                return Reason.HANDSHAKE
        else:
            # With a socket: at the end of what was sent. Without one: where the other side expects it, which
            # is what its segments acknowledged.
            if own.offset(segment.sequence) not in (own.next, own.acked):
                return Reason.SEQUENCE
            if segment.flags & ACK:
                if _check_acknowledgement(peer, peer.offset(segment.acknowledgement)) is not None:
                    return Reason.ACKNOWLEDGEMENT
            elif segment.acknowledgement:
                return Reason.ACKNOWLEDGEMENT
            if segment.identification and self._follow(own, segment) is not None:
                return Reason.IP_IDENTIFICATION
        if self.reset:
            return Reason.AFTER_END
        self.reset = True
        return Accepted()

    def _count_spelling(self, segment: Segment) -> None:
        """A checksum of zero is written as 0 or as 0xffff: one segment in 65,536, one bit each."""
        half = self.server if segment.from_server else self.tap
        if half is not None:
            half.choice_bits += 1

    def _skip(self, segment: Segment) -> None:
        """A segment that is not explained may still have been its socket's next datagram."""
        half = self.server if segment.from_server else self.tap
        if half is not None and half.identification is not None:
            following = (half.identification + 1) & 0xFFFF
            if segment.identification == following:
                half.identification = following

    def _follow(self, half: Half, segment: Segment) -> Reason | None:
        """The identification counts a socket's datagrams; the first is free, and 0 stands for no socket."""
        if half.identification is None:
            half.choice_bits += 16
        elif segment.identification != (half.identification + 1) & 0xFFFF:
            without_socket = segment.identification == 0 and half.fin is not None
            if not without_socket:
                return Reason.IP_IDENTIFICATION
            return None
        half.identification = segment.identification
        return None


def _is_last_word(half: Half, segment: Segment) -> bool:
    """Whether a segment comes from what a kernel keeps of a closed connection (TIME-WAIT).

    It has no socket, hence no identification, and its window is whatever was left of the last one.
    """
    return half.fin is not None and not segment.identification and not segment.payload


def _finished(half: Half) -> bool:
    return half.fin is not None and half.acked > half.fin


def _check_acknowledgement(peer: Half, acknowledged: int) -> Reason | None:
    """Only ends of segments can be acknowledged, never less than before, never what was not sent."""
    if acknowledged == peer.acked:
        return None
    if acknowledged < peer.acked or acknowledged > peer.next:
        return Reason.ACKNOWLEDGEMENT
    if any(run.end == acknowledged for run in peer.sent):
        return None
    return Reason.ACKNOWLEDGEMENT


def _check_pure(own: Half, peer: Half, start: int, acknowledged: int, time: float) -> Reason | None:
    """An acknowledgement alone must answer a segment of the other side.

    One that says nothing new comes soon after that segment, or after the one that did: a machine that could
    not run for a while answers a segment and its repetition together.
    """
    if start != own.next:
        return Reason.SEQUENCE  # a keep-alive probe, among others
    late = acknowledged == peer.acked and time - max(peer.last_time, peer.time) > own.delay
    if own.credits <= 0 or late:
        return Reason.NEEDLESS_ACK
    return None


def _check_placement(own: Half, segment: Segment, start: int, time: float) -> Reason | None:
    """Data follow what was sent before, or repeat it with a cause."""
    end = start + len(segment.payload)
    if start == own.next and own.fin is None:
        return Reason.SEQUENCE if end - own.acked > CONSTANT_WINDOW else None
    finishing = bool(segment.flags & FIN)
    last = own.next - (1 if own.fin is not None else 0)
    if start < 1 or end > last or (finishing and (own.fin is None or end != own.fin)):
        return Reason.SEQUENCE
    first_kept = last - len(own.kept)
    if start < first_kept or own.kept[start - first_kept : end - first_kept] != segment.payload:
        return Reason.REWRITTEN
    if end + finishing <= own.acked:
        return None if time - own.acked_time < own.delay else Reason.RETRANSMISSION
    last_sent = max(
        (run.time for run in own.sent if run.start < end + finishing and run.end > start), default=time
    )
    caused = own.duplicates >= _DUPLICATES or time - last_sent >= _RETRANSMISSION_WAIT
    return None if caused or _recovering(own, start, last_sent) else Reason.RETRANSMISSION


def _recovering(own: Half, start: int, last_sent: float) -> bool:
    return start < own.recover and last_sent < own.recover_since


def _acknowledge(own: Half, peer: Half, acknowledged: int, time: float, carries: bool) -> None:
    """Note what a segment of `own` acknowledges."""
    if acknowledged > peer.acked:
        while peer.sent and peer.sent[0].end <= acknowledged:
            peer.sent.popleft()
        peer.acked, peer.acked_time, peer.duplicates = acknowledged, time, 0
    elif not carries and peer.sent:
        peer.duplicates += 1
    if not carries:
        own.credits -= 1


def _carry(own: Half, peer: Half, segment: Segment, start: int, time: float) -> Accepted:
    """Remember data (and FIN) of an explained segment."""
    if not own.sent and time - own.last_time > peer.delay:
        peer.credits = 0  # what was not used of them has lapsed
    own.sent_time = time
    peer.credits += 1
    finishing = bool(segment.flags & FIN)
    end = start + len(segment.payload) + finishing
    if start != own.next:
        repeated = [run for run in own.sent if run.start < end and run.end > start]
        if repeated and not _recovering(own, start, max(run.time for run in repeated)):
            own.recover, own.recover_since, own.duplicates = own.next, time, 0
        for run in repeated:
            run.time = time
        return Accepted()
    own.sent.append(_Sent(start, end, time))
    own.kept += segment.payload
    if len(own.kept) > 2 * _KEPT_BYTES:
        del own.kept[:-_KEPT_BYTES]
    own.next = end
    if finishing:
        own.fin = end - 1
    return Accepted(segment.payload, start - 1)


def _choices(own: Half, peer: Half, segment: Segment, mss: int, start: int) -> float:
    """Bits that the sender could have chosen in this segment (timing apart).

    A pure acknowledgement: whether to send it at all, and up to where. Data: the push flag, the length of a
    segment that is not full, which earlier segment is repeated.
    """
    bits = 1 + math.log2(1 + len(peer.sent))
    if segment.window != CONSTANT_WINDOW:
        bits += 16
    if segment.payload and len(segment.payload) < mss:
        bits += math.log2(mss)
    if start != own.next:
        bits += math.log2(1 + len(own.sent))
    return bits
