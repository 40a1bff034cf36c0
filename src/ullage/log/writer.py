"""The one process that may append to a log: durable before acknowledged, many appends to one sync.

Whoever appends makes the batch durable that has gathered, its own part in it, unless another thread did so
meanwhile: a lone append waits for nobody. An event loop does so when everything that was ready to append has
done it. Only where a sync takes longer than handing over to another thread does (`SLOW_SYNC_S`), a thread of
the writer's syncs, so that the loop goes on. Checkpoints are signed by another, beside the appends.

After an error of the disk, nothing is acknowledged: what the kernel holds after a failed sync is unknown.
The writer then opens the log anew, as after a crash, again and again until the disk is well.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ullage.errors import FaultError, UllageError, UsageError
from ullage.log.entries import KeyEntry, VerdictEntry, hand_over
from ullage.log.files import failure_of, may_pass, replace, storage_fault
from ullage.log.journal.append import holds_lock, lock_journal
from ullage.log.journal.beginning import begin_files, committed_header
from ullage.log.journal.durable import DurableLog
from ullage.log.journal.pace import LONG_BACKLOG, SLOW_SYNC_S, CheckpointPolicy
from ullage.log.journal.preparer import Preparer
from ullage.log.journal.publisher import PUBLIC_KEY
from ullage.log.journal.recovery import Recovered, Recovery, aborted_closes, recover
from ullage.log.journal.segments import SEALED_FOLDER, SegmentHead
from ullage.log.journal.waiters import Waiter, resolve
from ullage.log.keys import TapKeys
from ullage.log.notes.checkpoint import Checkpoint, signs_for
from ullage.log.notes.signed_note import NoteSigner
from ullage.log.record import HeaderPart, Part

_LONGEST_WAIT = 3600.0
_LONGEST_PAUSE = 30.0


class LogWriter:
    """Appends parts to a log on disk. Make one with `create` or `open`; safe to use from many threads."""

    def __init__(self, directory: Path, lock: int, keys: TapKeys, policy: CheckpointPolicy | None) -> None:
        """Not for callers: `create` and `open` lock and check the files first."""
        self.directory = directory
        self.recovery = Recovery()
        self._lock_descriptor = lock
        self._keys = keys
        self._policy = policy or CheckpointPolicy()
        self._preparer: Preparer
        self._durable: DurableLog
        # Locks are taken in this order: a checkpoint is being written; a batch is being written; the queue.
        self._publishing = threading.Lock()
        self._writing = threading.Lock()
        self._queueing = threading.Lock()
        self._loops_wait = threading.Condition(self._queueing)
        self._queue: list[Waiter] = []
        self._closing = False
        self._failure: FaultError | None = None
        self._beyond_repair = False
        self._attend = threading.Event()
        self._committer = threading.Thread(target=self._commit_for_loops, name="ullage-log", daemon=True)
        self._tender = threading.Thread(target=self._tend, name="ullage-log-checkpoints", daemon=True)

    @classmethod
    def create(
        cls, directory: Path, keys: TapKeys, header: HeaderPart, policy: CheckpointPolicy | None = None
    ) -> Self:
        """Start a log in `directory`, which must not hold one. Raises UsageError, FaultError.

        The header's `seed_commitment` is set to that of `keys`.
        """
        header = committed_header(directory, keys, header)
        try:
            lock, found = begin_files(directory, keys, header)
        except OSError as error:
            raise storage_fault(directory, error) from error
        writer = cls(directory, lock, keys, policy)
        writer._adopt(found, header.log_id)
        writer._start()
        writer.append_sync(header)
        writer.checkpoint()
        return writer

    @classmethod
    def open(cls, directory: Path, keys: TapKeys, policy: CheckpointPolicy | None = None) -> Self:
        """Go on with a log: cut a torn tail, close what was in flight as `aborted`, sign.

        Where very much was left unsigned, that is signed beside the first appends. Raises UsageError when
        there is no log or another writer has it, IntegrityError when the journal does not fit the last
        checkpoint, FaultError when the disk fails. `recovery` says what was mended.
        """
        sealed = directory / SEALED_FOLDER
        if not sealed.is_dir():
            raise UsageError(
                f"{directory} holds no log that can be continued: it has no folder '{SEALED_FOLDER}'."
            )
        try:
            lock = lock_journal(sealed)
            writer = cls(directory, lock, keys, policy)
            try:
                writer._recover()
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise storage_fault(directory, error) from error
        writer._start()
        return writer

    @property
    def header(self) -> HeaderPart:
        """The log's first entry."""
        if self._preparer.state.header is None:
            raise UsageError("The log has no header yet.")
        return self._preparer.state.header

    @property
    def next_counter(self) -> int:
        """The counter that the next `OpenPart` must have; take it and append without waiting in between."""
        with self._queueing:
            return self._preparer.state.next_counter

    @property
    def failure(self) -> FaultError | None:
        """Why nothing can be appended at the moment, if the disk failed."""
        return self._failure

    async def append(self, part: Part) -> int:
        """Append and return the entry's index, once it is durable. Raises UsageError, FaultError."""
        return await self.append_all([part])

    async def append_all(self, parts: Sequence[Part]) -> int:
        """Append parts next to each other and return the index of the first, once all are durable.

        The parts have their place in the log when this coroutine first waits: appends keep the order in which
        they were begun. Cancelling the wait does not take them back. Raises UsageError, FaultError.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        with self._queueing:
            # Whoever of this loop was the last to queue up has asked it for a commit that is still to come.
            asked = bool(self._queue) and self._queue[-1].loop is loop
            self._enqueue(parts, loop, future)
        if not asked:
            loop.call_soon(self._commit_from_loop)
        return await future

    def append_sync(self, part: Part) -> int:
        """As `append`, for code without an event loop."""
        return self._append_now([part])

    def append_verdict(self, digest: str) -> int:
        """Note a verdict on this log, by the digest of its envelope. Raises UsageError, FaultError."""
        return self._append_now([VerdictEntry(digest)])

    def rotate_key(self, new: NoteSigner) -> int:
        """Hand the log over to a new key, which signs from here on. Raises UsageError, FaultError."""
        if not signs_for(new.name, self.header.log_id):
            raise UsageError(f"The key {new.name} cannot sign for the log {self.header.log_id}.")
        with self._publishing:
            with self._queueing:
                place = self._preparer.state.entries
                entry = hand_over(self._keys.log, new.verifier, self.header.log_id, place)
                waiter = self._enqueue([entry], None, None)
            self._finish(waiter)
            self._keys = dataclasses.replace(self._keys, log=new)
            self._publish()
            try:
                replace(self.directory / PUBLIC_KEY, f"{new.named(self.header.log_id).verifier}\n".encode())
            except OSError as error:
                raise storage_fault(self.directory, error) from error
        return place

    def checkpoint(self) -> Checkpoint:
        """Sign and store a checkpoint over everything appended before this call. Raises FaultError."""
        with self._publishing:
            return self._publish()

    def close(self) -> None:
        """Sign a last checkpoint and let go of the log. A second call does nothing. Raises FaultError."""
        with self._queueing:
            if self._closing:
                return
            self._closing = True
            self._loops_wait.notify()
        self._attend.set()
        self._committer.join()
        self._tender.join()
        try:
            self.checkpoint()
            self._durable.close()
        except OSError as error:
            raise storage_fault(self.directory, error) from error
        finally:
            self._durable.abandon()
            os.close(self._lock_descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except FaultError:
            if error is None:
                raise

    def _start(self) -> None:
        self._committer.start()
        self._tender.start()

    def _adopt(self, found: Recovered, log_id: str) -> None:
        preparer = Preparer(found.state, found.in_flight, log_id, self._keys.seal)
        durable = DurableLog(self.directory, log_id, found.journal, found.publisher, found.checkpoint)
        with self._queueing:
            self._preparer, self._durable = preparer, durable

    def _recover(self) -> None:
        """Take over what is on disk, close what was in flight, sign; nobody else is at work meanwhile.

        Much that is unsigned is left to the thread that signs. Raises as `recover`.
        """
        found = recover(self.directory, self._keys)
        if found.state.header is None:
            raise UsageError(f"{self.directory} holds no log.")
        closes = aborted_closes(found.in_flight, time.time_ns())
        self._adopt(found, found.state.header.log_id)
        try:
            if closes:
                self._durable.commit(self._preparer.prepare(closes))
            if self._durable.unsigned > LONG_BACKLOG:
                self._attend.set()  # appends need not wait for that
            elif publication := self._durable.take():
                self._durable.publish(publication, self._keys.log)
        except BaseException:
            self._durable.abandon()
            raise
        self.recovery = Recovery(tuple(part.counter for part in closes), found.cut_bytes, found.cut_file)

    def _append_now(self, parts: Sequence[Part | KeyEntry | VerdictEntry]) -> int:
        with self._queueing:
            waiter = self._enqueue(parts, None, None)
        return self._finish(waiter)

    def _finish(self, waiter: Waiter) -> int:
        """Make sure that a waiter's entries are durable: commit the queue unless another thread did."""
        with self._writing:
            if not waiter.done:
                self._commit()
        if waiter.failure is not None:
            raise FaultError(*waiter.failure.args)
        return waiter.first_index

    def _enqueue(
        self,
        parts: Sequence[Part | KeyEntry | VerdictEntry],
        loop: asyncio.AbstractEventLoop | None,
        future: asyncio.Future[int] | None,
    ) -> Waiter:
        """Give parts their place in the log; the caller holds the queue."""
        if self._failure is not None:
            raise FaultError(*self._failure.args)
        if self._closing:
            raise UsageError("The log is closed; nothing can be appended.")
        first_index = self._preparer.state.entries
        waiter = Waiter(first_index, self._preparer.prepare(parts), loop, future)
        self._queue.append(waiter)
        return waiter

    def _commit(self) -> None:
        """Make all that has gathered durable and tell who waits; the caller holds the right to write."""
        batch: list[Waiter] = []
        try:
            with self._queueing:
                batch, self._queue = self._queue, []
                head = self._next_head() if self._durable.full else None
            if not batch:
                return
            self._durable.commit([one for waiter in batch for one in waiter.prepared], head)
            resolve(batch, None)
            if self._durable.unsigned >= self._policy.entries:
                self._attend.set()
        except BaseException as error:  # whoever waits must hear of it, of an interrupt, too
            self._fail(failure_of(self.directory, error), batch)
            if not isinstance(error, Exception):
                raise

    def _next_head(self) -> SegmentHead:
        oldest = self._preparer.oldest_in_flight()
        entries = self._preparer.state.entries
        return self._preparer.head(self._durable.segment_of(oldest) if oldest < entries else entries)

    def _publish(self) -> Checkpoint:
        """Sign what is durable; the caller holds the right to publish.

        Whatever stops this, the log is opened anew then: what was taken is in no file yet.
        """
        try:
            with self._writing:
                self._commit()
                publication = None if self._failure else self._durable.take()
            signed = (
                self._durable.publish(publication, self._keys.log) if publication else self._durable.signed
            )
        except BaseException as error:
            self._fail(failure_of(self.directory, error), [])
            if not isinstance(error, Exception):
                raise
        if self._failure is not None:
            raise FaultError(*self._failure.args)
        if signed is None:
            raise FaultError("The log has nothing to sign yet.")
        return signed

    def _commit_from_loop(self) -> None:
        """Make durable what the event loop has gathered, here if the disk is fast, else in a thread."""
        if not self._queue:
            return
        if self._durable.last_sync_s < SLOW_SYNC_S and self._writing.acquire(blocking=False):
            try:
                self._commit()
            finally:
                self._writing.release()
        else:
            with self._queueing:
                self._loops_wait.notify()

    def _commit_for_loops(self) -> None:
        """The thread that makes the appends of event loops durable while the disk is slow."""
        while True:
            with self._queueing:
                self._loops_wait.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
            with self._writing:
                self._commit()

    def _tend(self) -> None:
        """The thread that signs checkpoints, and opens the log anew after an error of the disk."""
        pause = self._policy.reopen_seconds
        while not self._closing:
            if self._failure is None:
                self._attend.wait(min(self._policy.seconds, _LONGEST_WAIT))
                self._attend.clear()
                pause = self._policy.reopen_seconds
                try:
                    if not self._closing and (self._durable.unsigned or self._queue):
                        self._catch_up()
                        self.checkpoint()
                except UllageError:
                    continue  # the failure is kept, and the next round tries to mend it
                except Exception as error:  # this thread must not end: nobody else signs or mends
                    self._fail(failure_of(self.directory, error), [])
            else:
                self._attend.clear()
                self._attend.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                if not self._closing and not self._beyond_repair:
                    self._reopen()

    def _catch_up(self) -> None:
        """Hash what a log was left with in steps, between which appends go on."""
        behind = True
        while behind and not self._closing:
            with self._writing:
                behind = self._durable.catch_up()

    def _reopen(self) -> None:
        with self._publishing, self._writing:
            self._durable.abandon()
            if not holds_lock(self._lock_descriptor, self.directory / SEALED_FOLDER):
                # Moved away, or another folder is in its place: it may come back.
                self._fail(FaultError(f"The log is not at {self.directory} any more; put it back."), [])
                return
            try:
                self._recover()
            except UllageError as error:
                self._beyond_repair = not may_pass(error)
                self._fail(FaultError(str(error)), [])
            except Exception as error:
                self._fail(failure_of(self.directory, error), [])
            else:
                with self._queueing:
                    self._failure = None

    def _fail(self, failure: FaultError, batch: list[Waiter]) -> None:
        with self._queueing:
            self._failure = failure
            batch = batch + self._queue
            self._queue = []
        self._attend.set()
        resolve(batch, failure)
