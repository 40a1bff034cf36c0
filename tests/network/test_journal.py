"""The wire journal: golden lines, lines that are refused, and a reader that follows a writer."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from ullage.errors import MalformedError, UsageError
from ullage.network.journal import (
    CloseEntry,
    Entry,
    ExchangeEntry,
    HeaderEntry,
    JournalReader,
    OpenEntry,
    Totals,
    WireJournal,
    decode,
    encode,
)

EMPTY = "sha256:" + hashlib.sha256(b"").hexdigest()
ENTRIES: list[Entry] = [
    HeaderEntry(created=1_700_000_000_000_000_000, log_id="tap.example/one"),
    OpenEntry(
        connection=0, local=("192.0.2.1", 40_000), remote=("192.0.2.2", 8000), time=1_700_000_000_000_000_001
    ),
    ExchangeEntry(
        connection=0,
        counter=7,
        received=Totals(bytes=0, digest=EMPTY),
        sent=Totals(bytes=1 << 60, digest=EMPTY),
        time=1_700_000_000_000_000_002,
    ),
    CloseEntry(connection=0, time=1_700_000_000_000_000_003),
]
GOLDEN = Path(__file__).parent / "golden.journal"


def test_the_golden_journal_is_what_is_written() -> None:
    assert GOLDEN.read_bytes() == b"".join(map(encode, ENTRIES))
    assert JournalReader(GOLDEN).poll() == ENTRIES


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"connection":"0","entry":"close","time":1}',
        b'{"connection":"0","entry":"close","time":"01"}',
        b'{"connection":"0", "entry":"close","time":"1"}',
        b'{"entry":"close","connection":"0","time":"1"}',
        b'{"connection":"0","entry":"close","more":"","time":"1"}',
        b'{"connection":"-1","entry":"close","time":"1"}',
        b'{"connection":"0","entry":"open","local":["::1",1],"remote":["192.0.2.2",8000],"time":"1"}',
        b'{"connection":"0","entry":"open","local":["192.0.2.1",0],"remote":["192.0.2.2",8000],"time":"1"}',
        b"x" * 5000,
        b"\xff",
    ],
)
def test_other_lines_are_refused(line: bytes) -> None:
    with pytest.raises(MalformedError):
        decode(line)


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "wire.journal"
    with WireJournal(path, "tap.example/one") as journal:
        reader = JournalReader(path)
        assert [entry.entry for entry in reader.poll()] == ["header"]
        connection = journal.connect(("192.0.2.1", 40_000), ("192.0.2.2", 8000))
        connection.sent(b"ask")
        connection.received(b"ans")
        connection.received(b"wer")
        connection.exchanged(3)
        opened, exchange = reader.poll()
        assert isinstance(opened, OpenEntry)
        assert isinstance(exchange, ExchangeEntry)
        assert exchange.received == Totals(bytes=6, digest="sha256:" + hashlib.sha256(b"answer").hexdigest())
        with pytest.raises(UsageError):
            WireJournal(path, "tap.example/one")
    with path.open("ab") as file:
        file.write(b'{"connection":"0"')
    assert reader.poll() == []  # half a line is not a line yet


FULL = """
import resource, sys
from pathlib import Path
from ullage.errors import FaultError
from ullage.network.journal import WireJournal

def room(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

path = Path(sys.argv[1])
journal = WireJournal(path, "tap.example/one")
connection = journal.connect(("192.0.2.1", 40_000), ("192.0.2.2", 8000))
for more in (30, 5, 0):  # the beginning of a line, a little more of it, nothing
    room(path.stat().st_size + more)
    try:
        connection.exchanged(3)
    except FaultError as error:
        print(error)
room(resource.RLIM_INFINITY)
connection.exchanged(4)
connection.closed()
"""


def test_a_line_that_a_full_disk_cut_is_ended_before_the_next(tmp_path: Path) -> None:
    """Else one full disk would make the journal unreadable, and end the meter that follows it."""
    path = tmp_path / "wire.journal"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout.count("is full, so") == 3
    entries = JournalReader(path).poll()
    assert [one.entry for one in entries] == ["header", "open", "exchange", "exchange", "close"]
    assert [one.counter for one in entries if isinstance(one, ExchangeEntry)] == [3, 4]


def test_a_journal_begins_with_one_header(tmp_path: Path) -> None:
    path = tmp_path / "wire.journal"
    path.write_bytes(encode(ENTRIES[3]))
    with pytest.raises(MalformedError):
        JournalReader(path).poll()
    path.write_bytes(encode(ENTRIES[0]) * 2)
    with pytest.raises(MalformedError):
        JournalReader(path).poll()


def test_the_specification_shows_the_golden_lines() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/formats/wire-journal.md").read_text("utf-8")
    header, opened = GOLDEN.read_text("utf-8").splitlines()[:2]
    assert f"{header}\n{opened}\n" in text
