"""Folders of keys: what is made, who may read it, what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ullage.errors import MalformedError, UllageError, UsageError
from ullage.log.keys import (
    Role,
    create_keys,
    load_tap_keys,
    load_verifier,
    load_verifier_keys,
    load_witness_verifier,
)


def test_the_files_of_each_role(tmp_path: Path) -> None:
    tap = {"log.key", "log.pub", "seed.key", "seal.key"}
    verifier = {"verdict.key", "verdict.pub", "selection.key"}
    for role, expected in ((Role.TAP, tap), (Role.VERIFIER, verifier), (Role.ALL, tap | verifier)):
        assert {path.name for path in create_keys(tmp_path / role, role)} == expected
        for path in (tmp_path / role).iterdir():
            assert path.stat().st_mode & 0o777 == (0o644 if path.suffix == ".pub" else 0o600)
        assert (tmp_path / role).stat().st_mode & 0o777 == 0o700


def test_keys_come_back_and_differ(tmp_path: Path) -> None:
    create_keys(tmp_path, Role.ALL, "tap.example")
    tap, verifier = load_tap_keys(tmp_path), load_verifier_keys(tmp_path)
    assert tap.log.verifier == load_verifier(tmp_path / "log.pub")
    assert verifier.verdict.verifier == load_verifier(tmp_path / "verdict.pub")
    secrets = {tap.log.seed, tap.seed, tap.seal, verifier.verdict.seed, verifier.selection}
    assert len(secrets) == 5
    assert all(len(secret) == 32 for secret in secrets)
    assert tap.new_log_id().startswith("tap.example/")
    for secret in secrets:
        assert secret.hex() not in f"{tap!r}{verifier!r}"
        assert repr(secret) not in f"{tap!r}{verifier!r}"


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    create_keys(tmp_path, Role.TAP)
    before = (tmp_path / "log.key").read_bytes()
    with pytest.raises(UsageError, match="never overwritten"):
        create_keys(tmp_path, Role.ALL)
    assert (tmp_path / "log.key").read_bytes() == before
    create_keys(tmp_path, Role.VERIFIER)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    create_keys(tmp_path, Role.TAP)
    (tmp_path / "seed.key").chmod(mode)
    with pytest.raises(UsageError, match="chmod 600"):
        load_tap_keys(tmp_path)


def test_a_link_or_a_missing_key_is_refused(tmp_path: Path) -> None:
    create_keys(tmp_path, Role.TAP)
    (tmp_path / "seal.key").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="keys init"):
        load_tap_keys(tmp_path)
    (tmp_path / "seal.key").symlink_to("elsewhere")
    with pytest.raises(UsageError):
        load_tap_keys(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    create_keys(tmp_path, Role.TAP)
    (tmp_path / "seal.key").unlink()
    os.mkfifo(tmp_path / "seal.key", 0o600)
    with pytest.raises(UsageError):
        load_tap_keys(tmp_path)


def test_keys_in_each_others_place_are_refused(tmp_path: Path) -> None:
    create_keys(tmp_path, Role.TAP)
    seed = (tmp_path / "seed.key").read_bytes()
    for text in (b"", b"x\n", seed[:-1], seed + b"\n", seed.replace(b"v1 ", b"v2 "), b"a" * 2000):
        (tmp_path / "seed.key").write_bytes(text)
        with pytest.raises(MalformedError):
            load_tap_keys(tmp_path)
    (tmp_path / "seed.key").write_bytes((tmp_path / "seal.key").read_bytes())
    with pytest.raises(MalformedError, match="'seed'"):
        load_tap_keys(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UllageError):
        create_keys(tmp_path / "file" / "keys")


def test_another_file_than_a_public_key_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    create_keys(tmp_path, Role.ALL)
    with pytest.raises(UsageError, match="is a folder: give the public key in it"):
        load_verifier(tmp_path)
    with pytest.raises(UsageError, match=r"log\.key is not a public key: give a \.pub file") as caught:
        load_verifier(tmp_path / "log.key")
    assert (tmp_path / "log.key").read_text().strip() not in str(caught.value)
    with pytest.raises(UsageError, match=r"give its witness\.pub"):
        load_witness_verifier(tmp_path / "log.pub")
