"""Sources: folders with strange files, and web servers that are no friends."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.log.processes import hostile
from tests.log.published import LOG
from ullage.errors import FaultError, MalformedError, UsageError
from ullage.log.notes.policy import Policy
from ullage.log.source import DirectorySource, HttpSource, open_source, read_ahead
from ullage.log.tree.tiles import Bundle, Tile, encode_bundle
from ullage.log.verify import verify_log


def test_a_folder(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path)
    (tmp_path / "file").write_bytes(b"12345")
    assert source.read("file", 5) == b"12345"
    assert source.read("other", 5) is None
    assert source.read("file/below", 5) is None
    with pytest.raises(MalformedError, match="longer than 4"):
        source.read("file", 4)


def test_a_folder_with_what_is_no_file(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("folder", "pipe", "zero"):
        with pytest.raises(MalformedError, match="plain file"):
            source.read(name, 5)


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FaultError, match="cannot be read"):
        DirectorySource(tmp_path).read("loop", 5)


def test_the_full_files_stand_in_for_partial_ones(tmp_path: Path) -> None:
    (tmp_path / "tile/0").mkdir(parents=True)
    (tmp_path / "tile/entries").mkdir()
    (tmp_path / "tile/0/000").write_bytes(bytes(256 * 32))
    entries = [bytes([number]) for number in range(256)]
    (tmp_path / "tile/entries/000").write_bytes(encode_bundle(entries))
    addresses: list[Tile | Bundle] = [Tile(0, 0, 3), Bundle(0, 3), Bundle(0), Tile(0, 1, 3), Bundle(1, 3)]
    read = list(read_ahead(DirectorySource(tmp_path), addresses))
    assert read == [bytes(96), encode_bundle(entries[:3]), encode_bundle(entries), None, None]


@pytest.mark.parametrize("location", ["ftp://x/", "http://", "http://x/?a", "nowhere", "file:///etc"])
def test_what_is_no_log(location: str) -> None:
    with pytest.raises(UsageError):
        open_source(location)
    with pytest.raises(UsageError):
        HttpSource(location)


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("endless", MalformedError, "longer than"),
        ("drip", FaultError, "more than 1 seconds"),
        ("drip_head", FaultError, "more than 2 seconds"),
        ("bomb", MalformedError, "longer than"),
        ("not_gzip", MalformedError, "gzip"),
        ("redirect", FaultError, "redirects to 'file:///etc/passwd', which is not followed"),
        ("forbidden", FaultError, "answers 403"),
        ("broken", FaultError, "answers 500"),
        ("short", FaultError, "cannot be fetched"),
    ],
)
def test_hostile_servers_cost_little(kind: str, error: type[Exception], reason: str) -> None:
    with hostile(kind) as url:
        source = HttpSource(url, timeout_s=1)
        start = time.monotonic()
        with pytest.raises(error, match=reason):
            source.read("checkpoint", 1000)
        assert time.monotonic() - start < 8
        source.close()


def test_a_server_that_stumbles_is_asked_again() -> None:
    with hostile("stumbling") as url:
        assert HttpSource(url).read("checkpoint", 1000) == b"hello"


def test_a_server_without_a_log() -> None:
    with hostile("nothing") as url:
        findings = verify_log(HttpSource(url), Policy.of_key(LOG.verifier))
        assert [one.code for one in findings.findings] == ["no-checkpoint"]


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(FaultError, match="cannot be fetched"):
        HttpSource("http://127.0.0.1:1", timeout_s=1).read("checkpoint", 10)
