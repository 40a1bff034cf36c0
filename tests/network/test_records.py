"""The record book: follows a sealed log that grows, believes nothing that is unopened or unsigned."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.log.samples import NAME, chunk, closing, header, make_keys, opening
from ullage.errors import IntegrityError
from ullage.log.journal import append as journal
from ullage.log.keys import load_verifier
from ullage.log.reader import LogReader
from ullage.log.sealed.openers import RecordKeys, SealKey, load_opener
from ullage.log.writer import LogWriter
from ullage.network.monitor import Sources
from ullage.network.records import RecordBook

SENT, RECEIVED = 150, 200  # of `closing`


def begun(folder: Path) -> tuple[LogWriter, RecordBook]:
    log = LogWriter.create(folder / "log", make_keys(folder / "keys"), header())
    opener = load_opener(folder / "keys")
    assert isinstance(opener, SealKey)
    return log, RecordBook(folder / "log", opener)


def write(log: LogWriter, counter: int) -> None:
    log.append_sync(opening(counter, stream=True))
    log.append_sync(chunk(counter, 0, (5, 6)))
    log.append_sync(closing(counter, (5, 6)))


def test_a_record_is_known_once_it_is_closed_and_charged_once(tmp_path: Path) -> None:
    log, book = begun(tmp_path)
    log.append_sync(opening(0))
    book.poll()
    assert not book.knows(0)
    log.append_sync(closing(0, (5, 6)))
    book.poll()
    assert book.knows(0)
    assert book.charge(0, SENT + 1, 0) is None
    first = book.charge(0, SENT, RECEIVED - 1)
    assert first is not None
    assert first.output_ids == (5, 6)
    assert book.charge(0, 1, 0) is None
    assert book.charge(0, 0, 1) is not None
    assert not book.knows(0)
    log.close()
    assert book.verify(load_verifier(tmp_path / "log" / "log.pub")).startswith("sha256:")


def test_segments_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 4096)
    log, book = begun(tmp_path)
    for counter in range(40):
        write(log, counter)
        if counter % 7 == 0:
            book.poll()
    book.poll()
    assert len(list((tmp_path / "log" / "sealed").glob("*.segment"))) > 3
    assert all(book.charge(counter, SENT, RECEIVED) for counter in range(40))
    late = RecordBook(tmp_path / "log", SealKey(make_opener(tmp_path)))
    late.poll()
    assert not late.knows(0)
    assert late.knows(39)
    whole = RecordBook(tmp_path / "log", SealKey(make_opener(tmp_path)), whole=True)
    whole.poll()
    assert whole.knows(0)
    log.close()


def make_opener(folder: Path) -> bytes:
    opener = load_opener(folder / "keys")
    assert isinstance(opener, SealKey)
    return opener.secret


def test_a_record_without_its_key_explains_nothing(tmp_path: Path) -> None:
    log, _ = begun(tmp_path)
    write(log, 0)
    write(log, 1)
    log.close()
    keys = LogReader.open(tmp_path / "log", None, load_opener(tmp_path / "keys")).record_keys([1])
    book = RecordBook(tmp_path / "log", RecordKeys(NAME, keys.keys))
    book.poll()
    assert book.charge(0, SENT, RECEIVED) is None
    assert book.charge(1, SENT, RECEIVED) is not None


def test_a_frame_that_is_still_written_waits(tmp_path: Path) -> None:
    log, _ = begun(tmp_path)
    write(log, 0)
    log.close()
    segment = next((tmp_path / "log" / "sealed").glob("*.segment"))
    data = segment.read_bytes()
    segment.write_bytes(data[:-20] + bytes(20 + 4096))
    opener = load_opener(tmp_path / "keys")
    assert opener is not None
    book = RecordBook(tmp_path / "log", opener)
    book.poll()
    assert not book.knows(0)
    segment.write_bytes(data + bytes(4096))
    book.poll()
    assert book.charge(0, SENT, RECEIVED) is not None


def test_a_journal_beside_the_signed_log_is_found_out(tmp_path: Path) -> None:
    """The server's friend swaps the journal: what it explains is not what was signed."""
    for name, tokens in (("one", (5, 6)), ("two", (7, 8))):
        folder = tmp_path / name
        folder.mkdir()
        log = LogWriter.create(folder / "log", make_keys(folder / "keys"), header())
        log.append_sync(opening(0))
        log.append_sync(closing(0, tokens))
        log.close()
    sealed = tmp_path / "one" / "log" / "sealed"
    for path in sealed.glob("*.segment"):
        path.write_bytes((tmp_path / "two" / "log" / "sealed" / path.name).read_bytes())
    opener = load_opener(tmp_path / "two" / "keys")
    assert opener is not None
    book = RecordBook(tmp_path / "one" / "log", opener)
    book.poll()
    assert book.charge(0, SENT, RECEIVED) is not None
    with pytest.raises(IntegrityError, match="another one in its journal"):
        book.verify(load_verifier(tmp_path / "one" / "log" / "log.pub"))
    with pytest.raises(IntegrityError, match="another one in its journal"):
        Sources(records=book, key=load_verifier(tmp_path / "one" / "log" / "log.pub")).digests()
