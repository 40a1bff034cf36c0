"""`ullage log fsck`: every trouble named with its file; repairs only ever restore what was signed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.log.processes import ullage
from tests.log.samples import NEVER, header, make_keys, make_log, opening, read_log, records, segment
from ullage.errors import UsageError
from ullage.log.journal.segments import SegmentReader
from ullage.log.keys import TapKeys
from ullage.log.store import LogWriter
from ullage.log.upkeep.forgetting import forget_records
from ullage.log.upkeep.fsck import State, check_log, repair_log

RECORDS = 130  # 391 entries: a full tile and a partial one


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> TapKeys:
    return make_keys(tmp_path_factory.mktemp("tap") / "keys")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, keys: TapKeys) -> Path:
    directory = tmp_path_factory.mktemp("sound") / "log"
    with LogWriter.create(directory, keys, header(), NEVER) as writer:
        asyncio.run(writer.append_all(list(records(RECORDS))))
    return directory


@pytest.fixture
def log(tmp_path: Path, sound: Path) -> Path:
    shutil.copytree(sound, tmp_path / "log")
    return tmp_path / "log"


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def frames(log: Path) -> list[tuple[int, int, int]]:
    """(offset, key offset, end) of every frame of the only segment."""
    with segment(log).open("rb") as file:
        return [(one.offset, one.key_offset, one.end) for one in SegmentReader(file)]


def test_a_sound_log_has_no_troubles(log: Path) -> None:
    found = check_log(log)
    assert (found.state, found.troubles) == (State.SOUND, ())
    assert found.entries == found.signed > 256


REPAIRABLE: dict[str, tuple[Callable[[Path], object], set[tuple[str, str]]]] = {
    "a tile is missing": (lambda at: (at / "tile/0/000").unlink(), {("tile-missing", "tile/0/000")}),
    "a tile was altered": (lambda at: flip(at / "tile/0/000", 77), {("tile-mismatch", "tile/0/000")}),
    "a tile is too short": (lambda at: os.truncate(at / "tile/0/000", 9), {("tile-mismatch", "tile/0/000")}),
    "a bundle is missing": (
        lambda at: (at / "tile/entries/000").unlink(), {("entries-missing", "tile/entries/000")},
    ),
    "a bundle was altered": (
        lambda at: flip(at / "tile/entries/000", 99), {("entries-mismatch", "tile/entries/000")},
    ),
    "a crash left a file": (
        lambda at: (at / "tile/0/000.new").write_bytes(b"half"), {("leftover", "tile/0/000.new")},
    ),
    "the journal can be read by others": (
        lambda at: segment(at).chmod(0o644), {("permissions", f"sealed/{0:020d}.segment")},
    ),
    "its folder is open": (lambda at: (at / "sealed").chmod(0o755), {("permissions", "sealed")}),
}  # fmt: skip


@pytest.mark.parametrize("kind", REPAIRABLE)
def test_what_can_be_repaired_is_named_and_repaired(log: Path, sound: Path, kind: str) -> None:
    harm, expected = REPAIRABLE[kind]
    harm(log)
    found = check_log(log)
    assert found.state is State.REPAIRABLE
    assert {(trouble.code, trouble.path) for trouble in found.troubles} == expected
    before, after = repair_log(log)
    assert (before, after.state, after.troubles) == (found, State.SOUND, ())
    assert contents(log) == contents(sound)


def contents(log: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in log.rglob("*") if path.is_file())
    return {str(path.relative_to(log)): (path.read_bytes(), path.stat().st_mode) for path in files}


def test_all_that_is_published_can_be_made_again(log: Path, sound: Path) -> None:
    shutil.rmtree(log / "tile")
    found = check_log(log)
    assert found.state is State.REPAIRABLE
    assert repair_log(log)[1].state is State.SOUND
    assert contents(log) == contents(sound)


def test_hash_tiles_can_be_made_from_the_bundles_alone(log: Path, sound: Path, keys: TapKeys) -> None:
    shutil.rmtree(log / "sealed")
    shutil.rmtree(log / "tile" / "0")
    found = check_log(log)
    assert found.state is State.DAMAGED  # without its journal it can only be verified
    assert [trouble.code for trouble in found.troubles] == [
        "journal-missing", "tile-missing", "tile-missing",
    ]  # fmt: skip
    repair_log(log)
    assert contents(log) == {n: c for n, c in contents(sound).items() if not n.startswith("sealed")}
    assert read_log(log, keys).verify().verdict == "pass"


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _both(log: Path) -> None:
    os.truncate(segment(log), frames(log)[100][0])
    flip(next((log / "tile/entries").glob("001.p/*")), 50)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a frame that was durable": (lambda at: flip(segment(at), frames(at)[9][0] + 40), "frame-damaged"),
    "the journal's end": (lambda at: os.truncate(segment(at), frames(at)[300][0]), "entries-lost"),
    "its head": (lambda at: flip(segment(at), 40), "head-damaged"),
    "no segment": (lambda at: segment(at).unlink(), "journal-missing"),
    "something sealed": (lambda at: flip(segment(at), frames(at)[7][2] - 3), "seal-damaged"),
    "a link for a segment": (lambda at: _link(segment(at)), "strange-file"),
    "no checkpoint": (lambda at: (at / "checkpoint").unlink(), "no-checkpoint"),
    "the checkpoint": (lambda at: flip(at / "checkpoint", 20), "bad-signature"),
    "both copies of an entry": (_both, "root-mismatch"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_left_as_it_is(log: Path, kind: str) -> None:
    harm, code = DAMAGE[kind]
    harm(log)
    journal = {path: path.read_bytes() for path in (log / "sealed").iterdir() if path.is_file()}
    found = check_log(log)
    assert found.state is State.DAMAGED
    assert code in {trouble.code for trouble in found.troubles}
    repair_log(log)
    assert {path: path.read_bytes() for path in (log / "sealed").iterdir() if path.is_file()} == journal
    assert check_log(log).state is State.DAMAGED


def test_what_is_only_worth_knowing(log: Path, keys: TapKeys) -> None:
    (log / "sealed" / f"torn-{0:020d}-99").write_bytes(b"torn")
    (log / "sealed" / f"torn-{0:020d}-99").chmod(0o600)
    (log / "notes.txt").write_text("mine")
    data = segment(log).read_bytes()
    segment(log).write_bytes(data + data[frames(log)[-1][0] :][:50])
    found = check_log(log)
    assert found.state is State.SOUND
    assert {trouble.code for trouble in found.troubles} == {"torn-kept", "stray", "torn"}
    LogWriter.open(log, keys).close()
    assert {trouble.code for trouble in check_log(log).troubles} == {"torn-kept", "stray"}


def test_forgotten_records_are_no_damage(log: Path) -> None:
    forget_records(log, {3, 4})
    assert check_log(log).troubles == ()


def test_a_log_in_use_is_looked_at_and_not_repaired(log: Path, keys: TapKeys) -> None:
    with LogWriter.open(log, keys, NEVER) as writer:
        writer.append_sync(opening(RECORDS))
        found = check_log(log)
        assert (found.state, found.entries) == (State.SOUND, found.signed + 1)
        with pytest.raises(UsageError, match="stop it"):
            repair_log(log)


def test_the_command(log: Path, tmp_path: Path, keys: TapKeys) -> None:
    assert ullage("log", "fsck", log).returncode == 0
    (log / "tile/0/000").unlink()
    result = ullage("log", "fsck", log, "--json")
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert (document["state"], document["troubles"][0]["path"]) == ("repairable", "tile/0/000")
    result = ullage("log", "fsck", log, "--repair")
    assert result.returncode == 0
    assert "repaired: tile/0/000" in result.stdout
    assert ullage("log", "fsck", tmp_path / "nothing").returncode == 2
    assert ullage("log", "fsck", tmp_path).returncode == 2
    other = make_log(tmp_path / "other", keys, 1)
    assert ullage("log", "fsck", other, "--key", other / "log.pub").returncode == 0


def test_every_code_is_documented() -> None:
    root = Path(__file__).parents[2]
    table = (root / "docs/formats/fsck.md").read_text()
    sources = [root / f"src/ullage/log/upkeep/{name}.py" for name in ("fsck", "fsck_files", "fsck_journal")]
    found = {
        code
        for source in sources
        for code in re.findall(r'(?:_add|_add_named|Trouble)\(\s*"([a-z-]+)"', source.read_text())
    }
    assert len(found) > 14
    for code in found | {"tile-missing", "tile-mismatch", "entries-missing", "entries-mismatch"}:
        assert f"`{code}`" in table, code
