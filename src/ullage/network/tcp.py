"""A strict model of one TCP connection: which segments follow from what both sides have already sent.

Both directions are seen at one point of the link. A segment is explained when every field of its headers is
fixed, or is determined by earlier segments, or is one of a few choices that RFC 9293 leaves to the sender;
the last are counted in `choice_bits`. Kernels are configured for it (`cable.CANONICAL_TCP`): no timestamps,
no selective acknowledgements, no scaling, a constant window. Times are seconds, offsets count from the SYN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ullage.network.frames import Reason, Segment
from ullage.network.half import CONSTANT_WINDOW, TAP_REACTION, Half

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_HANDSHAKE_WAIT = 0.15
_ESTABLISHED_WAIT = 2.0  # seconds that a server may not have read the handshake's end
_RESET_BITS = 4  # window, place, acknowledgement or none, identification
_MODULUS = 1 << 32


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
        self._owed_answers = 0  # SYNs that no SYN-ACK has answered
        self._established: float | None = None  # when the tap ended the handshake

    @property
    def ended(self) -> bool:
        """Whether no further data can follow."""
        tap, server = self.tap, self.server
        if self.reset:
            return True
        return bool(tap and server and tap.is_finished and server.is_finished)

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
            self.tap = Half(segment.sequence, time, TAP_REACTION, identification=segment.identification)
            self.tap.choice_bits += 32 + 16  # initial sequence number, first identification
            self._owed_answers = 1
            return Accepted()
        if segment.sequence != self.tap.initial or time - self.tap.time < _HANDSHAKE_WAIT:
            return Reason.RETRANSMISSION
        refusal = self._follow(self.tap, segment)
        if refusal is not None:
            return refusal
        self._owed_answers += 1
        return self._again(self.tap, time)

    def _offer_answer(self, segment: Segment, time: float) -> Accepted | Reason:
        tap = self.tap
        if tap is None or segment.flags != SYN | ACK or segment.identification:
            return Reason.HANDSHAKE
        if segment.acknowledgement != (tap.initial + 1) % _MODULUS:
            return Reason.ACKNOWLEDGEMENT
        if self.server is None:
            self.server = Half(segment.sequence, time)
            self.server.choice_bits += 32
        elif (refusal := self._check_second_answer(self.server, segment, time)) is not None:
            return refusal
        else:
            self._again(self.server, time)
        self._owed_answers = max(0, self._owed_answers - 1)
        tap.earn()
        return Accepted()

    def _check_second_answer(self, server: Half, segment: Segment, time: float) -> Reason | None:
        """One for each SYN, and then until the tap's acknowledgement has been read."""
        if self.reset:
            return Reason.AFTER_END
        if server.next > 1:
            return Reason.HANDSHAKE
        late = self._established is not None and time - self._established > _ESTABLISHED_WAIT
        soon = time - server.time < _HANDSHAKE_WAIT and not self._owed_answers
        return Reason.RETRANSMISSION if segment.sequence != server.initial or late or soon else None

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
        refusal = peer.check_acknowledgement(acknowledged)
        if refusal is not None:
            return refusal
        finishing = bool(segment.flags & FIN)
        carries = bool(segment.payload) or finishing
        placed = (
            own.check_placement(segment.payload, start, fin=finishing, time=time)
            if carries
            else _check_pure(own, peer, start, acknowledged, time)
        )
        refusal = placed or self._follow(own, segment)
        if refusal is not None:
            return refusal
        if not segment.from_server and self._established is None:
            self._established = time
        own.choice_bits += _choices(own, peer, segment, self._mss, start)
        own.spend(peer.acknowledge(acknowledged, time, not carries), not carries)
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
                if peer.check_acknowledgement(peer.offset(segment.acknowledgement)) is not None:
                    return Reason.ACKNOWLEDGEMENT
            elif segment.acknowledgement:
                return Reason.ACKNOWLEDGEMENT
            if segment.identification and self._follow(own, segment) is not None:
                return Reason.IP_IDENTIFICATION
        if self.reset:
            return Reason.AFTER_END
        self.reset = True
        if own is not None:
            own.choice_bits += _RESET_BITS
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


def _check_pure(own: Half, peer: Half, start: int, acknowledged: int, time: float) -> Reason | None:
    """An acknowledgement alone must answer a segment of the other side.

    One that says nothing new comes soon after that segment, or after the one that did: a machine that could
    not run for a while answers a segment and its repetition together.
    """
    if start != own.next:
        return Reason.SEQUENCE  # a keep-alive probe, among others
    late = acknowledged == peer.acked and time - max(peer.last_progress, peer.time) > own.reaction
    if own.credits <= 0 or late:
        return Reason.NEEDLESS_ACK
    return None


def _carry(own: Half, peer: Half, segment: Segment, start: int, time: float) -> Accepted:
    """Remember data (and FIN) of an explained segment."""
    if not own.sent and time - own.last_progress > peer.reaction:
        peer.lapse()
    peer.earn()
    new = own.carry(segment.payload, start, fin=bool(segment.flags & FIN), time=time)
    return Accepted(new, start - 1) if new else Accepted()


def _choices(own: Half, peer: Half, segment: Segment, mss: int, start: int) -> float:
    """Bits that the sender could have chosen in this segment (timing apart).

    A pure acknowledgement: whether to send it at all, and up to where. Data: the push flag, the length of a
    segment that is not full, which earlier segments are repeated. The end of a connection: whether the
    segment comes from its socket, and what was left of the window if not.
    """
    bits = 1 + math.log2(1 + len(peer.sent))
    if own.fin is not None:
        bits += 1
    if segment.window != CONSTANT_WINDOW:
        bits += 16
    if start != own.next:
        bits += own.repetition_bits()
    elif segment.payload and len(segment.payload) < mss:
        bits += math.log2(mss)
    return bits
