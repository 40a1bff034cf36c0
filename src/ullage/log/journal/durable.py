"""The writer's hold on the disk: the journal that makes entries durable, the files that publish them.

The two are apart on purpose: a commit is one sync, a checkpoint is many, and appends need not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ullage.log.journal.append import Journal
from ullage.log.journal.publisher import Publication, Publisher, write_publication
from ullage.log.journal.segments import Prepared, SegmentHead
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.notes.signed_note import NoteSigner


class DurableLog:
    """A log's files, open for writing. Methods raise OSError; after one the log must be recovered.

    One thread at a time may be in `commit`, `catch_up` or `take`; `publish` may run beside them.
    """

    def __init__(
        self,
        directory: Path,
        log_id: str,
        journal: Journal,
        publisher: Publisher,
        signed: Checkpoint | None,
    ) -> None:
        self._directory = directory
        self._log_id = log_id
        self._journal = journal
        self._publisher = publisher
        self.signed = signed

    @property
    def unsigned(self) -> int:
        """How many durable entries no checkpoint covers."""
        return self._publisher.size - (self.signed.size if self.signed else 0)

    @property
    def full(self) -> bool:
        """Whether the next commit should end with a new segment."""
        return self._journal.full

    @property
    def last_sync_s(self) -> float:
        """How many seconds the last sync took."""
        return self._journal.last_sync_s

    def segment_of(self, index: int) -> int:
        """First index of the segment that holds an entry, or will."""
        return self._journal.segment_of(index)

    def commit(self, batch: Sequence[Prepared], next_head: SegmentHead | None = None) -> None:
        """Make entries durable with one sync; then begin the segment with `next_head`, if given."""
        self._journal.append(batch)
        if next_head is not None:
            self._journal.rotate(next_head)
        self._publisher.add([one.entry for one in batch])

    def catch_up(self) -> bool:
        """Hash some of what `take` would have to hash otherwise; whether there is more to do."""
        self._publisher.catch_up()
        return self._publisher.behind

    def take(self) -> Publication | None:
        """What a checkpoint of everything committed needs; None when the last one covers it."""
        return self._publisher.take(self._log_id) if self.unsigned else None

    def publish(self, publication: Publication, signer: NoteSigner) -> Checkpoint:
        """Write tiles and bundles, then the checkpoint."""
        write_publication(self._directory, publication, signer)
        self.signed = publication.checkpoint
        return publication.checkpoint

    def close(self) -> None:
        self._journal.close()

    def abandon(self) -> None:
        """Let go of the files as they are, after an error."""
        self._journal.abandon()
