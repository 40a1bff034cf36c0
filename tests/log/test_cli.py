"""The commands as a user runs them: output, exit codes, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.log.samples import NEVER, header, make_log, opening
from ullage.log.keys import load_tap_keys
from ullage.log.store import LogWriter


def ullage(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from ullage.cli.main import run; run()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """keys/, log/ with three records."""
    directory = tmp_path_factory.mktemp("cli")
    made = ullage("keys", "init", directory / "keys", "--role", "tap", "--name", "tap.example/one")
    assert made.returncode == 0
    assert "log.pub" in made.stdout
    make_log(directory / "log", load_tap_keys(directory / "keys"))
    return directory


def test_keys_are_not_made_twice(folder: Path) -> None:
    again = ullage("keys", "init", folder / "keys")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "never overwritten" in again.stderr


def test_verify_with_the_taps_key(folder: Path) -> None:
    result = ullage("log", "verify", folder / "log", "--key", folder / "keys" / "log.pub", "--json")
    document = json.loads(result.stdout)
    assert result.returncode == 0
    assert (document["verdict"], document["findings"]) == ("pass", [])
    assert {claim["name"]: claim["value"] for claim in document["claims"]} == {
        "log.integrity": 1.0,
        "log.coverage": 1.0,
    }


def test_verify_without_a_key_warns(folder: Path) -> None:
    result = ullage("log", "verify", folder / "log")
    assert result.returncode == 0
    assert "vouches for itself" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("pass: 9 of 9 entries signed, 3 records, 3 closed")


def test_a_flipped_byte_fails_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", load_tap_keys(folder / "keys"))
    bundle = log / "tile" / "entries" / "000.p" / "9"
    entries = bytearray(bundle.read_bytes())
    entries[-40] ^= 0x01
    bundle.write_bytes(entries)
    result = ullage("log", "verify", log)
    assert result.returncode == 1
    assert "altered" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_an_unsigned_tail_cannot_be_told(folder: Path, tmp_path: Path) -> None:
    with LogWriter.create(tmp_path / "log", load_tap_keys(folder / "keys"), header(), NEVER) as writer:
        writer.append_sync(opening(0))
        result = ullage("log", "verify", tmp_path / "log")
    assert result.returncode == 3
    assert "not covered by a signature" in result.stdout


@pytest.mark.parametrize("command", ["verify", "show"])
def test_no_log_there(tmp_path: Path, command: str) -> None:
    assert ullage("log", command, tmp_path / "nothing").returncode == 2
    result = ullage("log", command, tmp_path)
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr


def test_show_prints_what_is_public_and_with_keys_the_rest(folder: Path) -> None:
    listing = ullage("log", "show", folder / "log").stdout.splitlines()
    assert len(listing) == 4
    assert "complete" in listing[1]
    public = json.loads(ullage("log", "show", folder / "log", "1").stdout)
    assert (public["output_tokens"], public["stream"], "close" in public) == (3, True, False)
    keys = ("--record-keys", folder / "keys")
    one = json.loads(ullage("log", "show", folder / "log", "1", *keys).stdout)
    assert one["close"]["output_ids"] == [5, 6, 7]
    lines = ullage("log", "show", folder / "log", "--json", *keys).stdout.splitlines()
    assert [json.loads(line)["open"]["counter"] for line in lines] == ["0", "1", "2"]
    assert ullage("log", "show", folder / "log", "7").returncode == 2
    assert "endpoint" not in ullage("log", "show", folder / "log", "--json").stdout


def test_open_and_forget(folder: Path, tmp_path: Path) -> None:
    log, keys, out = (
        make_log(tmp_path / "log", load_tap_keys(folder / "keys")),
        folder / "keys",
        tmp_path / "o",
    )
    assert ullage("log", "open", log, "1", "2", "--keys", keys, "--out", out).returncode == 0
    assert ullage("log", "open", log, "--keys", keys, "--out", tmp_path / "p").returncode == 2
    shown = ullage("log", "show", log, "--record-keys", out).stdout
    assert "record-unopened" in shown
    assert ullage("log", "forget", log, "1").returncode == 2
    assert ullage("log", "forget", log, "1", "--yes").returncode == 0
    shown = ullage("log", "show", log, "--record-keys", out).stdout
    assert shown.count("complete") == 1
    assert "record-forgotten" in shown
    assert ullage("log", "verify", log, "--key", keys / "log.pub").returncode == 0


def test_rotate_the_keys(tmp_path: Path) -> None:
    keys, old = tmp_path / "keys", tmp_path / "old.pub"
    assert ullage("keys", "init", keys, "--role", "tap", "--name", "tap.example/one").returncode == 0
    log = make_log(tmp_path / "log", load_tap_keys(keys))
    old.write_bytes((keys / "log.pub").read_bytes())
    assert ullage("log", "rotate-key", log, "--keys", keys).stdout == (keys / "log.pub").read_text()
    assert ullage("log", "rotate-seal", log, "--keys", keys).stdout == "3 record keys wrapped anew\n"
    for key in (old, keys / "log.pub"):
        assert ullage("log", "verify", log, "--key", key).returncode == 0
    assert ullage("log", "show", log, "--record-keys", keys).stdout.count("complete") == 3


def test_prove_and_verify_the_proof(folder: Path, tmp_path: Path) -> None:
    proof, key = tmp_path / "1.tlog-proof", folder / "keys" / "log.pub"
    assert ullage("log", "prove", folder / "log", "1", "--key", key, "--out", proof).returncode == 0
    good = ullage("log", "verify", proof, "--key", key)
    assert (good.returncode, good.stdout.split(":")[0]) == (0, "pass")
    assert ullage("log", "verify", proof).returncode == 2
    assert ullage("log", "prove", folder / "log", "1").stdout.encode() == proof.read_bytes()
    assert json.loads(ullage("log", "prove", folder / "log", "1", "--json").stdout)["index"] == 6
    proof.write_bytes(proof.read_bytes().replace(b"index 6", b"index 5"))
    bad = ullage("log", "verify", proof, "--key", key)
    assert bad.returncode == 1
    assert bad.stderr.count("\n") == 1


def test_these_commands_bring_no_torch() -> None:
    code = "import ullage.cli.log.show, ullage.cli.keys, ullage.log.store, sys; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("'torch'", "'numpy'", "'transformers'", "'starlette'"):
        assert heavy not in modules
