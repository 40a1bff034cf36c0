"""The verifier's session: one connection a slot, jobs out, roots and paths in, all on the verifier's clock.

Nothing here judges: the session notes what came when, and names what went wrong. A slot that is lost
is tried again every second, and what it owed is simply never accounted.
"""

from __future__ import annotations

import itertools
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ullage.errors import FaultError, MalformedError, UllageError
from ullage.sockets import break_when_lost
from ullage.work.full_check import FullCheck
from ullage.work.operands import SEED_BYTES
from ullage.work.protocol import (
    MAX_FROM_PROVER,
    MAX_TILE,
    SESSION_BYTES,
    Forget,
    Hello,
    Job,
    Mode,
    Open,
    Proof,
    Ready,
    Refuse,
    Root,
    Send,
    Tile,
)
from ullage.work.shape import Shape
from ullage.work.stream import Stream
from ullage.work.window import Unit

Clock = Callable[[], int]
_MAX_FINDINGS = 1000
_SEND_SECONDS = 1.0
"""A prover whose buffers are full for so long does not read. It loses its slot, and holds nobody up."""
_MAX_STRAY = 1000
"""Messages a connection that are no answers. Each costs the verifier time, and a verifier that is late slows
the companion as it slows the machine."""
_NAMED_STRAY = 5
"""So many of them are findings: more would push others out of the account."""
MAX_UNITS = 65_536
"""Jobs a slot that are kept until a window is over, as many as a prover has to keep: who answers faster than
that answers without computing, and would fill the verifier's memory."""
DEPTH = 2
"""Jobs outstanding a slot: one is computed while the other crosses the wire."""


@dataclass(frozen=True)
class Terms:
    """What the verifier asks of the prover."""

    host: str
    port: int
    slots: int
    shape: Shape
    mode: Mode = Mode.OPENINGS
    depth: int = DEPTH
    due_seconds: float = 5.0
    """A root that comes later does not count."""
    connect_seconds: float = 30.0
    """How long a slot may take to accept the terms: it loads its libraries meanwhile."""


@dataclass
class Session:
    """Everything that happened, by job. Start with `start`, end with `stop`."""

    terms: Terms
    clock: Clock = time.monotonic_ns
    units: dict[int, Unit] = field(default_factory=dict)
    paths: dict[tuple[int, int], tuple[bytes, ...]] = field(default_factory=dict)
    bytes_sent: int = 0
    bytes_received: int = 0

    def __post_init__(self) -> None:
        self._identity = secrets.token_bytes(SESSION_BYTES)
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._stopping = threading.Event()
        self._findings: list[str] = []
        self._streams: dict[int, Stream] = {}
        self._connections: Counter[int] = Counter()
        self._asked: set[tuple[int, int]] = set()
        self._held: Counter[int] = Counter()
        self._stray: Counter[int] = Counter()
        self._threads: list[threading.Thread] = []
        self._full = FullCheck(self.terms.shape) if self.terms.mode is Mode.FULL else None

    def start(self) -> bool:
        """Connect every slot. Returns when all are ready or their time is over; whether all are."""
        ready = [threading.Event() for _ in range(self.terms.slots)]
        for slot, event in enumerate(ready):
            thread = threading.Thread(target=self._keep_slot, args=(slot, event), daemon=True)
            thread.start()
            self._threads.append(thread)
        deadline = time.monotonic() + self.terms.connect_seconds
        return all(event.wait(max(0.0, deadline - time.monotonic())) for event in ready)

    def stop(self) -> None:
        """Close all connections."""
        self._stopping.set()
        with self._lock:
            streams = list(self._streams.values())
        for stream in streams:
            stream.close()
        for thread in self._threads:
            thread.join(5.0)
        if self._full:
            self._full.stop()

    def take_findings(self) -> tuple[str, ...]:
        """What went wrong since the last call, in words."""
        with self._lock:
            found, self._findings = tuple(self._findings), []
        return found

    def answered_in(self, start: int, end: int) -> list[Unit]:
        """Units that were issued and answered within [start, end], on the session's clock."""
        with self._lock:
            return [unit for unit in self.units.values() if unit.within(start, end)]

    def outstanding(self) -> int:
        """Jobs without an answer."""
        with self._lock:
            return sum(unit.answered is None and not unit.lost for unit in self.units.values())

    def ask(self, questions: list[tuple[Unit, int]], seconds: float) -> None:
        """Open rows, and wait for the paths at most so long; what came is in `paths`.

        A job of an earlier connection is not asked about: what a prover keeps, it keeps for a connection.
        """
        with self._lock:
            wanted = {(unit.number, row) for unit, row in questions if self._is_reachable(unit)}
            self._asked |= wanted
        slots = {unit.number: unit.slot for unit, _ in questions}
        for number, row in sorted(wanted):
            stream = self._streams.get(slots[number])
            if stream is not None:
                self._send_quietly(stream, Open(number, row))
        with self._arrived:
            self._arrived.wait_for(lambda: wanted <= self.paths.keys(), seconds)

    def _is_reachable(self, unit: Unit) -> bool:
        return unit.slot in self._streams and self._is_current(unit)

    def forget_settled(self, end: int) -> None:
        """Forget the jobs that no window after `end` can need, and have the prover forget them.

        Slot by slot: one that never answers keeps its own jobs, and nobody else's.
        """
        with self._lock:
            settled = self._settled(end)
            self.units = {number: unit for number, unit in self.units.items() if number > settled[unit.slot]}
            self._held = Counter(unit.slot for unit in self.units.values())
            self.paths = {key: path for key, path in self.paths.items() if key[0] in self.units}
            self._asked = {key for key in self._asked if key[0] in self.units}
            streams = [(self._streams.get(slot), number) for slot, number in settled.items() if number >= 0]
        for stream, number in streams:
            if stream is not None:
                self._send_quietly(stream, Forget(number))

    def _settled(self, end: int) -> dict[int, int]:
        """For each slot the largest job number such that none of its jobs up to it is needed, or -1."""
        found: dict[int, int] = {}
        needed: set[int] = set()
        for number, unit in sorted(self.units.items()):
            if unit.slot in needed:
                continue
            if self._is_needed(unit, end):
                needed.add(unit.slot)
                found.setdefault(unit.slot, -1)
            else:
                found[unit.slot] = number
        return found

    def _is_needed(self, unit: Unit, end: int) -> bool:
        if unit.issued >= end:
            return True
        if unit.lost:
            return False
        return unit.answered is None or (self._full is not None and self._full.awaits(unit.number))

    def take_held_up(self) -> float:
        """Slot-seconds since the last call in which a slot waited for the verifier's own full checks."""
        return self._full.take_held_up() if self._full else 0.0

    def settle_full_checks(self, units: list[Unit], seconds: float) -> None:
        """In mode 1: wait at most so long until these units' products have been checked."""
        if self._full:
            self._full.settle({unit.number for unit in units}, seconds)

    def _note(self, finding: str) -> None:
        with self._lock:
            if len(self._findings) < _MAX_FINDINGS:
                self._findings.append(finding)

    def _note_stray(self, slot: int, finding: str) -> None:
        """Note a message that is no answer, the first few of a connection.

        Raises MalformedError when there were too many.
        """
        self._stray[slot] += 1
        if self._stray[slot] <= _NAMED_STRAY:
            self._note(finding)
        if self._stray[slot] > _MAX_STRAY:
            raise MalformedError(f"it sent more than {_MAX_STRAY} messages that are no answers.")

    def _send_quietly(self, stream: Stream, *messages: Open | Forget) -> None:
        try:
            stream.send(*messages)
        except FaultError as error:
            self._note(f"a question could not be sent: {error}")
            stream.close()  # the slot's thread notices, and names the slot

    def _keep_slot(self, slot: int, ready: threading.Event) -> None:
        while not self._stopping.is_set():
            try:
                self._serve_slot(slot, ready)
            except (UllageError, OSError) as error:
                if not self._stopping.is_set():
                    self._note(f"slot {slot} was lost: {error}")
            with self._lock:
                stream = self._streams.pop(slot, None)
                own = {unit.number: unit for unit in self.units.values() if unit.slot == slot}
                for unit in own.values():
                    unit.lost |= unit.answered is None
            if self._full:
                self._full.drop(slot, set(own))
            if stream:
                stream.close()
                with self._lock:
                    self.bytes_sent += stream.bytes_sent
                    self.bytes_received += stream.bytes_received
            self._stopping.wait(1.0)

    def _serve_slot(self, slot: int, ready: threading.Event) -> None:
        terms = self.terms
        connection = socket.create_connection((terms.host, terms.port), terms.connect_seconds)
        limit = MAX_TILE if terms.mode is Mode.FULL else MAX_FROM_PROVER
        break_when_lost(connection)  # or a path that dies while nothing is sent would cost the slot for good
        stream = Stream(connection, limit, _SEND_SECONDS)
        with self._lock:
            self._streams[slot] = stream
            self._connections[slot] += 1
        self._stray[slot] = 0
        stream.send(Hello(terms.mode, terms.shape, terms.depth, self._identity))
        answer = stream.receive(terms.connect_seconds)
        if not isinstance(answer, Ready):
            raise MalformedError("it did not accept the terms.")
        ready.set()
        for _ in range(terms.depth):
            self._issue(slot, stream)
        while not self._stopping.is_set():
            message = stream.receive()
            now = self.clock()
            if message is None:
                raise FaultError("it closed the connection.")
            self._take(slot, stream, message, now)

    def _issue(self, slot: int, stream: Stream) -> None:
        seed = secrets.token_bytes(SEED_BYTES)
        with self._lock:
            if self._held[slot] >= MAX_UNITS:
                raise MalformedError(f"it answered {MAX_UNITS} jobs in a window, which nobody computes.")
            self._held[slot] += 1
            number = next(self._numbers)
            # Before it is sent: the clock of a unit never starts late.
            connection = self._connections[slot]
            self.units[number] = Unit(number, slot, seed, self.clock(), connection=connection)
        stream.send(Job(number, seed))

    def _take(self, slot: int, stream: Stream, message: object, now: int) -> None:
        match message:
            case Root(number, root):
                self._take_root(slot, stream, number, root, now)
            case Proof(number, row, path):
                self._take_proof(slot, number, row, path)
            case Tile() if self._full:
                unit = self.units.get(message.number)
                if unit is None or unit.slot != slot or unit.root is None or not self._is_current(unit):
                    raise MalformedError("it sent a product that nobody asked for.")
                self._full.take(unit, message)
            case Refuse(code):
                self._note_stray(slot, f"slot {slot} refused to answer (code {code})")
            case _:
                raise MalformedError("it sent a message that a prover does not send.")

    def _take_root(self, slot: int, stream: Stream, number: int, root: bytes, now: int) -> None:
        with self._lock:
            unit = self.units.get(number)
            known = unit is not None and unit.slot == slot and self._is_current(unit)
            if known and unit is not None and unit.answered is None:
                unit.answered, unit.root = now, root
                late = now - unit.issued > self.terms.due_seconds * 1e9
                unit.late = late
            else:
                unit = None
        if unit is None:
            self._note_stray(
                slot,
                f"slot {slot} sent a second root for job {number}; the first one stands"
                if known
                else f"slot {slot} sent a root for job {number}, which it does not have",
            )
            return
        if self._full and not unit.late:
            self._full.expect(unit)
            stream.send(Send(number))
        self._issue(slot, stream)

    def _is_current(self, unit: Unit) -> bool:
        """Whether it was issued on its slot's present connection. Without this a prover that breaks its
        connection again and again would have any number of jobs at once, enough for a far helper."""
        return unit.connection == self._connections[unit.slot]

    def _take_proof(self, slot: int, number: int, row: int, path: tuple[bytes, ...]) -> None:
        with self._arrived:
            unit = self.units.get(number)
            if unit is None or unit.slot != slot or (number, row) not in self._asked:
                finding = f"slot {slot} sent a path that nobody asked for (job {number}, row {row})"
            elif (number, row) in self.paths:
                finding = f"slot {slot} sent a second path (job {number}, row {row}); the first one stands"
            else:
                self.paths[number, row] = path
                self._arrived.notify_all()
                return
        self._note_stray(slot, finding)
