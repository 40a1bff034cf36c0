"""Frames of one interface, from the kernel's ring (packet(7), TPACKET_V3), and how many it had to drop."""

from __future__ import annotations

import ctypes
import mmap
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from ullage.errors import FaultError, UsageError
from ullage.network.namespaces import NotPermittedError

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 1, 5, 6, 10
_PACKET_MR_PROMISC = 1
_TPACKET_V3 = 2
_SO_ATTACH_FILTER = 26
_TP_STATUS_USER = 1
_VLAN_VALID = 1 << 4
_PACKET_OUTGOING = 4
_BLOCK_BYTES = 1 << 20
_BLOCKS = 32
_FRAME_BYTES = 1 << 11
_RETIRE_MILLISECONDS = 50
_BLOCK = struct.Struct("=IIIIIIQ")  # version, private offset, status, packets, first, length, sequence
_STATUS_OFFSET = 8
_PACKET = struct.Struct("=IIIIIIHH")  # next, sec, nsec, captured, length, status, mac, net
_ADDRESS = 48  # sockaddr_ll after a tpacket3_hdr; the packet's type is its eleventh byte
_TYPE = _ADDRESS + 10


class Frame(NamedTuple):
    """One frame as captured."""

    time: float
    outgoing: bool  # left this interface, rather than came in
    length: int  # on the wire, a tag that the kernel took off not counted
    data: bytes  # the first `snap` bytes
    tagged: bool  # a VLAN tag was taken off


class Capture:
    """An open ring on an interface of the current network namespace."""

    def __init__(self, interface: str, blocks: int = _BLOCKS, ethertype: int | None = None) -> None:
        """`ethertype`: only frames of this type. Raises NotPermittedError, UsageError, FaultError."""
        self._map: mmap.mmap | None = None
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError as error:
            raise NotPermittedError(
                "Frames cannot be captured here: that needs CAP_NET_RAW. Run the meter as root, or give it a "
                "capture file with --pcap."
            ) from error
        try:
            if ethertype is not None:
                self._filter(ethertype)
            self._open(interface, blocks)
        except BaseException:
            self._socket.close()
            raise
        self._blocks = blocks
        self._current = 0
        self.frames = 0
        self.dropped = 0

    def _open(self, interface: str, blocks: int) -> None:
        try:
            index = socket.if_nametoindex(interface)
        except OSError as error:
            raise UsageError(f"There is no interface '{interface}' in this network namespace.") from error
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            ring = struct.pack(
                "=7I", _BLOCK_BYTES, blocks, _FRAME_BYTES, _BLOCK_BYTES // _FRAME_BYTES * blocks,
                _RETIRE_MILLISECONDS, 0, 0,
            )  # fmt: skip
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, ring)
            self._map = mmap.mmap(self._socket.fileno(), _BLOCK_BYTES * blocks)
            member = struct.pack("=iHH8s", index, _PACKET_MR_PROMISC, 0, b"")
            self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, member)
            self._socket.bind((interface, _ETH_P_ALL))
        except OSError as error:
            raise FaultError(f"{interface} cannot be captured: {error.strerror}.") from error

    def _filter(self, ethertype: int) -> None:
        """Let the kernel drop frames of other types before they cost anything."""
        program = struct.pack(
            "=HBBIHBBIHBBIHBBI",
            0x28, 0, 0, 12,  # load the type
            0x15, 0, 1, ethertype,
            0x06, 0, 0, 1 << 18,  # take the frame
            0x06, 0, 0, 0,
        )  # fmt: skip
        buffer = ctypes.create_string_buffer(program, len(program))
        description = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, description)

    def fileno(self) -> int:
        return self._socket.fileno()

    def wait(self, seconds: float) -> None:
        """Sleep until frames are there, at most so long."""
        ready, _, _ = select.select([self._socket], [], [], seconds)
        if ready and self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            # The interface went down. Asking takes the error away, which would end every later wait at once.
            time.sleep(seconds)

    def read(self, snap: int = 1 << 16) -> Iterator[Frame]:
        """The frames that are there now, at most one ring full; blocks go back to the kernel as they are used
        up.
        """
        assert self._map is not None  # noqa: S101 - set by `_open`
        for _ in range(self._blocks):
            base = self._current * _BLOCK_BYTES
            _, _, status, packets, first, _, _ = _BLOCK.unpack_from(self._map, base)
            if not status & _TP_STATUS_USER:
                return
            yield from self._frames(base + first, packets, snap)
            struct.pack_into("=I", self._map, base + _STATUS_OFFSET, 0)
            self._current = (self._current + 1) % self._blocks

    def _frames(self, position: int, packets: int, snap: int) -> Iterator[Frame]:
        memory = self._map
        assert memory is not None  # noqa: S101
        for _ in range(packets):
            following, seconds, nanoseconds, captured, length, status, mac, _ = _PACKET.unpack_from(
                memory, position
            )
            start = position + mac
            data = memory[start : start + min(captured, snap)]
            outgoing = memory[position + _TYPE] == _PACKET_OUTGOING
            self.frames += 1
            yield Frame(seconds + nanoseconds / 1e9, outgoing, length, data, bool(status & _VLAN_VALID))
            position += following

    def drops(self) -> int:
        """Frames that the kernel could not put into the ring, since the beginning."""
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        self.dropped += struct.unpack("=III", statistics)[1]
        return self.dropped

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class InterfaceCounters(NamedTuple):
    """What the kernel counts for an interface by itself."""

    received_bytes: int
    received_frames: int
    sent_bytes: int
    sent_frames: int

    @classmethod
    def read(cls, interface: str) -> InterfaceCounters:
        """The counters of an interface of the calling thread's namespace. Raises UsageError."""
        # /proc/net is /proc/self/net: that of the main thread.
        for line in Path("/proc/thread-self/net/dev").read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            if name.strip() == interface:
                fields = [int(text) for text in rest.split()]
                return cls(fields[0], fields[1], fields[8], fields[9])
        raise UsageError(f"There is no interface '{interface}' in this network namespace.")


def inject(interface: str) -> socket.socket:
    """A socket that sends whole frames out of an interface. Raises NotPermittedError."""
    try:
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sender.bind((interface, 0))
    except PermissionError as error:
        raise NotPermittedError("Heartbeats cannot be sent here: that needs CAP_NET_RAW.") from error
    return sender
