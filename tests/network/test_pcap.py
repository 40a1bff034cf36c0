"""Capture files: what we write we read, what others write too, and what is broken is refused."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.network.samples import conversation, link
from tests.network.test_meter import REQUEST, RESPONSE, START, journal
from ullage.errors import MalformedError
from ullage.network.frames import Reason
from ullage.network.journal import HeaderEntry, encode
from ullage.network.monitor import Sources, meter_file
from ullage.network.pcap import read_capture, write_frame, write_header

FRAMES = [frame for frame, _ in conversation(REQUEST, RESPONSE)]


def pcap_file(path: Path) -> Path:
    frames = [write_frame(START + number * 0.001, frame) for number, frame in enumerate(FRAMES)]
    path.write_bytes(write_header() + b"".join(frames))
    return path


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def pcapng_bytes(order: str, sides: Sequence[bool] | None = None) -> bytes:
    """`sides`: of each frame whether it left the interface that was captured."""
    section = block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    nanoseconds = struct.pack(order + "HHB3x", 9, 1, 9) + struct.pack(order + "HH", 0, 0)
    interface = block(order, 1, struct.pack(order + "HHI", 1, 0, 0) + nanoseconds)
    packets = b""
    for number, frame in enumerate(FRAMES):
        stamp = int((START + number * 0.001) * 1e9)
        head = struct.pack(order + "5I", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), len(frame))
        options = b""
        if sides is not None:
            options = bytes(-len(frame) % 4) + struct.pack(order + "HHIHH", 2, 4, 1 + sides[number], 0, 0)
        packets += block(order, 6, head + frame + options)
    return section + interface + packets


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = list(read_capture(pcap_file(tmp_path / "a.pcap")))
    assert [frame.data for frame in found] == FRAMES
    assert found[5].time == pytest.approx(START + 0.005, abs=1e-6)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_of_either_byte_order_is_read(tmp_path: Path, order: str) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(pcapng_bytes(order))
    found = list(read_capture(path))
    assert [frame.data for frame in found] == FRAMES
    assert found[5].time == pytest.approx(START + 0.005, abs=1e-6)


@pytest.mark.parametrize("forged", [False, True])
def test_a_file_that_knows_who_sent_a_frame_is_believed_more_than_the_frame(
    tmp_path: Path, forged: bool
) -> None:
    """A frame with the tap's address that came in over the cable was made by the server."""
    sides = [not from_server for _, from_server in conversation(REQUEST, RESPONSE)]
    sides[2] ^= forged  # the tap's acknowledgement of the handshake
    path = tmp_path / "a.pcapng"
    path.write_bytes(pcapng_bytes("<", sides))
    meter = meter_file(path, link(), Sources()).meter
    assert meter.reasons.get(Reason.MAC, 0) == 54 * forged


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_every_cut_is_noticed(tmp_path: Path, suffix: str) -> None:
    whole = pcap_file(tmp_path / "a").read_bytes() if suffix == "pcap" else pcapng_bytes("<")
    path = tmp_path / f"b.{suffix}"
    for size in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:size])
        try:
            found = [frame.data for frame in read_capture(path)]
        except MalformedError:
            continue
        assert found == FRAMES[: len(found)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a capture at all",
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 113),  # Linux cooked
        write_header() + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30),
        block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + struct.pack("<II", 6, 1 << 31),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(MalformedError):
        list(read_capture(path))


def test_the_command_meters_a_file(tmp_path: Path) -> None:
    """Without a log the handshake is overhead, and what no record names is unexplained."""
    path = pcap_file(tmp_path / "a.pcap")
    entries = [HeaderEntry(created=1, log_id="tap.example/one"), *journal()]
    (tmp_path / "wire.journal").write_bytes(b"".join(map(encode, entries)))
    done = subprocess.run(
        [sys.executable, "-m", "ullage", "wire", "meter", "--json", "--pcap", str(path),
         "--journal", str(tmp_path / "wire.journal")],
        capture_output=True, check=False,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert document["unexplained_by_reason"] == {
        "payload of a record that the log does not have": len(REQUEST) + len(RESPONSE)
    }
    names = {claim["name"]: claim for claim in document["claims"]}
    assert names["wire.egress_rate"]["value"] > 0
    assert names["wire.unexplained_fraction"]["bound"] == "upper"
