"""The declared model's name: one digest over every file that decides what the model computes.

The manifest follows the OpenSSF Model Signing convention (serialization method `files`, SHA-256,
resources sorted by name); `docs/formats/model-identity.md` gives the exact bytes and says where and
why the digest goes one step further than the convention's own root digest.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rfc8785

from ullage.errors import UsageError
from ullage.plain_files import open_plain_file

_MAX_FILES = 4096

# What decides a model's function: weights, configuration, tokenizer, chat template.
_COUNTED_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken"})

# Weights that run code when they are opened. A folder that holds them is refused, not skipped: a loader
# might prefer them to the files that were hashed.
_PICKLED_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib"})

_PROSE = re.compile(r"(?i)^(readme|licen[cs]e|notice|copying|model_?card|requirements|changelog)(\..*)?$")


@dataclass(frozen=True)
class FileDigest:
    """One resource of the manifest: POSIX path relative to the folder, and SHA-256 in hexadecimal."""

    name: str
    sha256: str


@dataclass(frozen=True)
class ModelIdentity:
    """`digest` is `sha256:` of the canonical manifest; `files` are its resources, sorted by name."""

    digest: str
    files: tuple[FileDigest, ...]

    @classmethod
    def of_files(cls, files: tuple[FileDigest, ...]) -> ModelIdentity:
        """The identity of resources that were hashed already, in any order."""
        ordered = tuple(sorted(files, key=lambda file: file.name))
        return cls("sha256:" + hashlib.sha256(_manifest(ordered)).hexdigest(), ordered)

    @property
    def manifest(self) -> bytes:
        """The canonical bytes (RFC 8785) that `digest` is the SHA-256 of."""
        return _manifest(self.files)

    @property
    def root_digest(self) -> str:
        """The convention's own root digest: SHA-256 over the files' raw digests in order of name.

        For looking a model up beside an OpenSSF signature. It does not bind the names, so it is not
        what a record holds.
        """
        raw = b"".join(bytes.fromhex(file.sha256) for file in self.files)
        return "sha256:" + hashlib.sha256(raw).hexdigest()


def identify(folder: Path) -> ModelIdentity:
    """Hash every file of `folder` that counts.

    Raises UsageError when the folder is not a model in safetensors format, or holds pickled weights.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a folder; give the folder of a Hugging Face causal language model."
        )
    counted = sorted(_counted_files(folder))
    names = [name for name, _ in counted]
    if "config.json" not in names:
        raise UsageError(f"{folder} has no config.json; it is not the folder of a Hugging Face model.")
    if not any(name.endswith(".safetensors") for name in names):
        raise UsageError(f"{folder} holds no weights (*.safetensors).")
    return ModelIdentity.of_files(tuple(FileDigest(name, _sha256(path)) for name, path in counted))


def _counted_files(folder: Path) -> Iterator[tuple[str, Path]]:
    seen = 0
    for directory, subdirectories, names in os.walk(folder, followlinks=False):
        here = Path(directory)
        subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
        for name in subdirectories:
            if (here / name).is_symlink():
                raise UsageError(
                    f"{here / name} is a link to a folder; copy its files into the model's folder."
                )
        for name in names:
            path = here / name
            suffix = path.suffix.lower()
            if name.startswith("."):
                continue
            if suffix in _PICKLED_SUFFIXES:
                raise UsageError(
                    f"{path} is a pickled file, which can run code when it is loaded; "
                    "convert the weights to safetensors and remove it."
                )
            if suffix not in _COUNTED_SUFFIXES or _PROSE.match(name):
                continue
            seen += 1
            if seen > _MAX_FILES:
                raise UsageError(f"{folder} holds more than {_MAX_FILES} model files.")
            yield path.relative_to(folder).as_posix(), path


def _sha256(path: Path) -> str:
    try:
        with open_plain_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def _manifest(files: tuple[FileDigest, ...]) -> bytes:
    return rfc8785.dumps(
        {
            "resources": [
                {"algorithm": "sha256", "digest": file.sha256, "name": file.name} for file in files
            ],
            "serialization": {"allow_symlinks": True, "hash_type": "sha256", "method": "files"},
        }
    )
