"""The model's name is the SHA-256 of a manifest whose bytes docs/formats/model-identity.md gives."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ullage.errors import MalformedError, UsageError
from ullage.model.identity import identify

FILES = {
    "config.json": b'{"vocab_size": 8}\n',
    "model.safetensors": b"\x00weights\xff",
    "sub/extra.json": b"{}",
    "tokenizer.json": b"tok",
    "chat_template.jinja": b"{{ messages }}",
}
GOLDEN = "sha256:3471db84049f3ad7b735271f150adceb65a594eefa501c6265bde36852fe1ccc"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_digest_is_that_of_the_documented_bytes(folder: Path) -> None:
    resources = ",".join(
        f'{{"algorithm":"sha256","digest":"{hashlib.sha256(FILES[name]).hexdigest()}","name":"{name}"}}'
        for name in sorted(FILES)
    )
    manifest = (
        f'{{"resources":[{resources}],'
        '"serialization":{"allow_symlinks":true,"hash_type":"sha256","method":"files"}}'
    ).encode()
    identity = identify(folder)
    assert identity.manifest == manifest
    assert identity.digest == "sha256:" + hashlib.sha256(manifest).hexdigest() == GOLDEN


def test_root_digest_is_that_of_the_convention(folder: Path) -> None:
    raw = b"".join(hashlib.sha256(FILES[name]).digest() for name in sorted(FILES))
    assert identify(folder).root_digest == "sha256:" + hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_byte_counts(folder: Path, name: str) -> None:
    before = identify(folder).digest
    data = bytearray(FILES[name])
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    assert identify(folder).digest != before


def test_names_count(folder: Path) -> None:
    before = identify(folder)
    (folder / "tokenizer.json").rename(folder / "tokenizer2.json")
    assert identify(folder).root_digest == before.root_digest  # why the convention's digest is not enough
    assert identify(folder).digest != before.digest


def test_prose_and_hidden_files_do_not_count(folder: Path) -> None:
    before = identify(folder)
    for name in ("README.md", "LICENSE", "LICENSE.txt", "model_card.md", ".gitattributes", "picture.png"):
        (folder / name).write_text("new")
    (folder / ".git").mkdir()
    (folder / ".git" / "config.json").write_text("{}")
    assert identify(folder) == before


@pytest.mark.parametrize("name", ["pytorch_model.bin", "sub/weights.pt", "x.PTH", "a.pkl"])
def test_pickled_weights_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x80\x04")
    with pytest.raises(UsageError, match="pickled"):
        identify(folder)


def test_links_to_files_count_by_content_and_links_to_folders_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    before = identify(folder)
    blobs = tmp_path / ".blobs"
    blobs.mkdir()
    (folder / "tokenizer.json").rename(blobs / "blob")
    (folder / "tokenizer.json").symlink_to(blobs / "blob")
    assert identify(folder) == before
    (folder / "more").symlink_to(blobs)
    with pytest.raises(UsageError, match="link"):
        identify(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_without_a_model_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UsageError):
        identify(folder)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(MalformedError, match="not a plain file"):
        identify(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        identify(tmp_path / "nothing")
