"""A pipe, or a device that never ends, in the place of a file: every reader refuses it at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ullage.audit.bundle.envelope import read_envelope
from ullage.audit.bundle.folder import file_digest
from ullage.claims import read_claims
from ullage.errors import MalformedError, UsageError
from ullage.log.files import read_limited
from ullage.log.journal.segments import open_segment, segment_path
from ullage.log.source import DirectorySource
from ullage.model.settings import read_json
from ullage.plain_files import open_plain_file, read_plain_file
from ullage.report.documents import read_document
from ullage.report.token_table import read_outcomes, read_tokens
from ullage.report.verdict_view import read_verdict

READERS: dict[str, Callable[[Path], object]] = {
    "a file of a log, from its folder": lambda path: DirectorySource(path.parent).read(path.name, 100),
    "a file of a log": lambda path: read_limited(path, 100),
    "claims": read_claims,
    "a document": read_document,
    "a verdict": read_envelope,
    "a verdict on a page": read_verdict,
    "evidence": file_digest,
    "tokens on a page": read_tokens,
    "records on a page": read_outcomes,
    "a model's settings": read_json,
}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("put", [pipe, endless])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused(tmp_path: Path, reader: str, put: Callable[[Path], None]) -> None:
    put(tmp_path / "strange")
    with pytest.raises((MalformedError, UsageError), match="strange is not a plain file"):
        READERS[reader](tmp_path / "strange")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("put", [pipe, endless])
def test_a_segment_that_is_no_file_is_refused(tmp_path: Path, put: Callable[[Path], None]) -> None:
    put(segment_path(tmp_path, 0))
    with pytest.raises(MalformedError, match=r"segment is not a plain file"):
        open_segment(tmp_path, 0)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_plain_file(path, 5) == read_plain_file(tmp_path / "link", 5) == b"12345"
    with pytest.raises(MalformedError, match="file is longer than 4 bytes"):
        read_plain_file(path, 4)
    with open_plain_file(path) as file:
        assert file.name == str(path)
        assert not os.get_inheritable(file.fileno())


def test_what_the_system_refuses_is_for_the_caller_to_word(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_plain_file(tmp_path / "nothing", 5)
    with pytest.raises(IsADirectoryError):
        read_plain_file(tmp_path, 5)


@pytest.mark.parametrize("reader", ["claims", "a document", "a verdict on a page", "a verdict"])
def test_a_file_without_end_in_sight_is_not_read_whole(tmp_path: Path, reader: str) -> None:
    with (tmp_path / "long").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MalformedError, match="long is longer than"):
        READERS[reader](tmp_path / "long")
