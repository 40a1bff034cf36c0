"""The monitor beside a running tap: has what was released read, keeps accounts, says whom to block.

The tap calls two functions. `blocked(client, now)` stands where its byte budget is looked at, before a
request has a counter; on True the tap answers with its fixed error `budget_exhausted`. `observe(client,
released, now)` gets the bytes of a response after it has left. An answer in flight is finished, so a client
may pass its account by the answers in flight, as with the byte budget. Answers wait in a bounded queue, and
are read in a process of their own: a tap under load drops to counting (`skipped`), it does not slow down.

An answer over which that process dies, or takes longer than its time, or that could not be judged for any
other reason, is booked at the most that one message counts: nobody escapes the account by breaking the
reader.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from ullage.monitor.budget import Account, PayloadBudget
from ullage.monitor.finding import Seen
from ullage.monitor.process import ReaderProcess

_MOST_WAITING: Final = 256
MOST_BYTES: Final = 64 << 20  # of all answers that wait, and of one
_UNREADABLE: Final = "unreadable"


class Reading(Protocol):
    """What reads answers: `ullage.monitor.reader.Reader` or a process that has one."""

    def read(self, client: str, released: bytes) -> list[Seen]:
        """What each text held. Raises UnreadableError."""


@dataclass(frozen=True)
class Alarm:
    """A client's account passed the evidence for an alarm, or its limit, with a message of these kinds."""

    client: str
    account: Account
    kinds: tuple[str, ...]


class Watch:
    """Has released answers read; `notify` is called in a thread with each alarm, once a client and day."""

    def __init__(
        self,
        budget: PayloadBudget,
        notify: Callable[[Alarm], None],
        *,
        blocks: bool = False,
        reader: Reading | None = None,
    ) -> None:
        self.skipped = 0  # answers that were not read, because too many waited
        self.scanned = 0
        self.unreadable = 0
        self.bits = 0  # payload bits of all clients
        self.alarms = 0
        self._budget = budget
        self._notify = notify
        self._blocks = blocks
        self._process = ReaderProcess()
        self._reader: Reading = reader or self._process
        self._lock = threading.Lock()
        self._waiting: queue.Queue[tuple[str, bytes, int] | None] = queue.Queue(_MOST_WAITING)
        self._waiting_bytes = 0
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def blocked(self, client: str, time_ns: int) -> bool:
        """Whether this client's requests are to be refused for the rest of the day."""
        if not self._blocks:
            return False
        with self._lock:
            return self._budget.is_blocked(client, time_ns)

    def observe(self, client: str, released: bytes, time_ns: int) -> None:
        """Bytes of one response's body, JSON or events; returns at once."""
        with self._lock:
            fits = self._waiting_bytes + len(released) <= MOST_BYTES
            if fits:
                try:
                    self._waiting.put_nowait((client, released, time_ns))
                    self._waiting_bytes += len(released)
                except queue.Full:
                    fits = False
            self.skipped += not fits

    def close(self, patience: float | None = None) -> None:
        """Have read what waits, at most about so many seconds, then end the thread and the process."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=patience)
        self._thread.join(patience)
        self._process.close()

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            client, released, time_ns = item
            try:
                for seen in self._reader.read(client, released):
                    self._book(client, seen.bits, seen.kinds, time_ns)
            except Exception:  # UnreadableError, or a defect: without this thread nobody is blocked
                self.unreadable += 1
                self._book(client, self._budget.allowance.cap_bits, (_UNREADABLE,), time_ns)
            with self._lock:
                self._waiting_bytes -= len(released)
            self.scanned += 1

    def _book(self, client: str, bits: int, kinds: tuple[str, ...], time_ns: int) -> None:
        with self._lock:
            self.bits += bits
            before = self._budget.is_blocked(client, time_ns)
            account = self._budget.charge(client, bits, time_ns)
            after = self._budget.is_blocked(client, time_ns)
        if after and not before:
            self.alarms += 1
            with contextlib.suppress(Exception):  # the account stands, whether or not anybody could be told
                self._notify(Alarm(client, account, kinds))
