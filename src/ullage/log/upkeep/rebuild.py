"""Making the published files again: tiles and bundles out of the journal, hash tiles out of the bundles.

Only entries under the signed root are ever published anew, so that a repair cannot change a log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ullage.errors import MalformedError
from ullage.log.files import replace_all
from ullage.log.journal.segments import SEALED_FOLDER
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.source import DirectorySource, read_bundle, read_tile
from ullage.log.tree.tile_tree import TreeEdge
from ullage.log.tree.tiles import TILE_WIDTH, Bundle, bundles_of, decode_bundle, encode_bundle, parse_path
from ullage.log.upkeep.fsck_journal import whole_frames
from ullage.log.upkeep.trouble import Grade, Trouble
from ullage.merkle import leaf_hash

_MAX_NAMED = 50
_FILES_AT_ONCE = 256
_Journal = Iterator[tuple[int, bytes]]


@dataclass
class Rebuilding:
    """What the published files should hold, held against what they hold."""

    directory: Path
    checkpoint: Checkpoint
    journal_first: bool = True
    possible: bool = False  # the entries at hand are those that were signed
    wrong: dict[str, str] = field(default_factory=dict)  # path -> the code of what is wrong with it
    troubles: list[Trouble] = field(default_factory=list)

    @classmethod
    def look(cls, directory: Path, checkpoint: Checkpoint) -> Rebuilding:
        """Find the entries that were signed, in the journal or in the bundles, and what does not fit them."""
        attempts = [cls(directory, checkpoint, journal_first) for journal_first in (True, False)]
        for attempt in attempts:
            attempt._compare()
            if attempt.possible:
                attempt._report()
                return attempt
        attempts[0]._report()
        return attempts[0]

    def write(self) -> None:
        """Put every file in its place that is wrong. Raises OSError."""
        waiting: list[tuple[Path, bytes]] = []
        for path, data in self._files():
            if path in self.wrong:
                waiting.append((self.directory / path, data))
            if len(waiting) >= _FILES_AT_ONCE:
                replace_all(waiting)
                waiting = []
        replace_all(waiting)

    def _compare(self) -> None:
        edge = TreeEdge()
        for path, data in self._files(edge):
            found = self._published(path, data)
            if found is not None:
                self.wrong[path] = found
        self.possible = edge.size == self.checkpoint.size and edge.root() == self.checkpoint.root

    def _files(self, edge: TreeEdge | None = None) -> Iterator[tuple[str, bytes]]:
        """Every bundle and tile of the checkpoint, as the entries at hand make them; stops at a gap."""
        edge = TreeEdge() if edge is None else edge
        journal = self._journal()
        ahead = next(journal, None)
        source = DirectorySource(self.directory)
        for bundle in bundles_of(self.checkpoint.size):
            published = _decoded(source, bundle)
            first = bundle.index * TILE_WIDTH
            entries: list[bytes] = []
            for at in range(bundle.width):
                while ahead is not None and ahead[0] < first + at:
                    ahead = next(journal, None)
                mine = ahead[1] if ahead is not None and ahead[0] == first + at else None
                theirs = published[at] if published is not None else None
                entry = (mine or theirs) if self.journal_first else (theirs or mine)
                if entry is None:
                    return
                entries.append(entry)
            yield bundle.path, encode_bundle(entries)
            for tile, data in edge.append(b"".join(map(leaf_hash, entries))):
                yield tile.path, data
        for tile, data in edge.partial_tiles():
            yield tile.path, data

    def _journal(self) -> _Journal:
        folder = self.directory / SEALED_FOLDER
        if folder.is_dir():
            yield from ((frame.index, frame.entry) for frame in whole_frames(folder))

    def _published(self, path: str, data: bytes) -> str | None:
        """What is wrong with a published file; a partial one may be replaced by the full one."""
        address, source = parse_path(path), DirectorySource(self.directory)
        kind = "entries" if isinstance(address, Bundle) else "tile"
        try:
            if isinstance(address, Bundle):
                found = read_bundle(source, address)
            else:
                found = None if address is None else read_tile(source, address)
        except MalformedError:
            return f"{kind}-mismatch"
        if found is None:
            return f"{kind}-missing"
        return None if found == data else f"{kind}-mismatch"

    def _report(self) -> None:
        if not self.possible:
            sentence = (
                f"Neither the journal nor the bundles hold the {self.checkpoint.size} entries that were "
                "signed, so nothing can be made again. `ullage log verify` says what is altered."
            )
            self.troubles.append(Trouble("root-mismatch", Grade.DAMAGE, "tile", sentence))
            return
        for path, code in list(self.wrong.items())[:_MAX_NAMED]:
            verb = "is not there" if code.endswith("missing") else "is not what was signed"
            sentence = f"It {verb}; it can be made again from the journal or the bundles."
            self.troubles.append(Trouble(code, Grade.REPAIR, path, sentence))
        if len(self.wrong) > _MAX_NAMED:
            sentence = f"{len(self.wrong) - _MAX_NAMED} more published files can be made again."
            self.troubles.append(Trouble("more", Grade.REPAIR, "tile", sentence))


def _decoded(source: DirectorySource, bundle: Bundle) -> list[bytes] | None:
    try:
        data = read_bundle(source, bundle)
        return None if data is None else decode_bundle(data, bundle.width)
    except MalformedError:
        return None
