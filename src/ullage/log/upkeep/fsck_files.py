"""The names and modes of a log's files: what is there that should not be, and who could read it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from ullage.log.journal.publisher import CHECKPOINT, PUBLIC_KEY
from ullage.log.journal.segments import CLIENT_BYTES, SEALED_FOLDER
from ullage.log.tree.tiles import parse_path
from ullage.log.upkeep.trouble import Grade, Trouble

_TOP = frozenset({CHECKPOINT, PUBLIC_KEY, "cosigned"})
_JOURNAL = re.compile(r"lock|[0-9]{20}\.segment", re.ASCII)
_TORN = re.compile(r"torn-[0-9]{20}-[0-9]+", re.ASCII)
_MAX_NAMED = 50


def check_files(directory: Path, *, in_use: bool) -> list[Trouble]:
    """Modes, stray files, leftovers of a crash, torn tails that were kept. Raises OSError."""
    troubles = [*_modes(directory)]
    strays = []
    for name in _names(directory):
        if name.endswith(".new"):
            if not in_use:
                sentence = "A crash left this file half written; nothing reads it."
                troubles.append(Trouble("leftover", Grade.REPAIR, name, sentence))
        elif _TORN.fullmatch(name.removeprefix(f"{SEALED_FOLDER}/")) and name.startswith(SEALED_FOLDER):
            size = (directory / name).stat().st_size
            sentence = (
                f"Recovery cut {size} bytes that were never finished, and kept them here. They were never "
                "acknowledged, so nothing depends on them, unless a bit had flipped in the last batch."
            )
            troubles.append(Trouble("torn-kept", Grade.NOTE, name, sentence))
        elif not _is_known(name):
            strays.append(name)
    sentence = "No file of a log has this name; nothing reads it."
    troubles += [Trouble("stray", Grade.NOTE, name, sentence) for name in strays[:_MAX_NAMED]]
    if len(strays) > _MAX_NAMED:
        sentence = f"{len(strays) - _MAX_NAMED} more files are no part of the log."
        troubles.append(Trouble("stray", Grade.NOTE, ".", sentence))
    return troubles


def leftovers(directory: Path) -> list[Path]:
    """Files that a crash left half written. Raises OSError."""
    return [directory / name for name in _names(directory) if name.endswith(".new")]


def mend_modes(directory: Path) -> None:
    """Keep what is sealed from others. Raises OSError."""
    sealed = directory / SEALED_FOLDER
    if sealed.is_dir():
        sealed.chmod(0o700)
        for path in sealed.iterdir():
            if path.is_file() and not path.is_symlink():
                path.chmod(0o600)


def _modes(directory: Path) -> Iterator[Trouble]:
    sealed = directory / SEALED_FOLDER
    if not sealed.is_dir():
        return
    for path, allowed in [(sealed, 0o700), *((path, 0o600) for path in sorted(sealed.iterdir()))]:
        status = path.lstat()
        name = str(path.relative_to(directory))
        plain = stat.S_ISDIR(status.st_mode) if path == sealed else stat.S_ISREG(status.st_mode)
        if not plain:
            yield Trouble(
                "strange-file", Grade.DAMAGE, name, "This is a link, a device or a folder, not a file."
            )
        elif stat.S_IMODE(status.st_mode) & ~allowed:
            sentence = f"Others may use it (mode {stat.S_IMODE(status.st_mode):o}); it should be {allowed:o}."
            yield Trouble("permissions", Grade.REPAIR, name, sentence)
        elif status.st_uid != os.geteuid():
            sentence = "It belongs to another user than the one who asks; the tap must own it."
            yield Trouble("owner", Grade.NOTE, name, sentence)


def _is_known(name: str) -> bool:
    if name in _TOP or parse_path(name) is not None:
        return True
    folder, _, file = name.partition("/")
    return folder == SEALED_FOLDER and (file == CLIENT_BYTES or _JOURNAL.fullmatch(file) is not None)


def _names(directory: Path) -> Iterator[str]:
    """Paths of all files under the folder, sorted, links not followed."""
    for folder, _, files in sorted(os.walk(directory)):
        for file in sorted(files):
            yield str((Path(folder) / file).relative_to(directory))
