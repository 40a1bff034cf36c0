"""The prover's side: a listener that serves one verifier at a time."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from ullage.errors import FaultError, MalformedError, UllageError
from ullage.memory.agent.inventory import Inventory
from ullage.memory.agent.keeper import FIRST_SEGMENT, Keeper, Part, RefusedError
from ullage.memory.machine.region import Region
from ullage.memory.machine.segments import NO_CACHE, CacheShape, Segment, SegmentKind
from ullage.memory.protocol.fields import Message
from ullage.memory.protocol.lanes import Landing
from ullage.memory.protocol.messages import (
    VERSION,
    Bye,
    Code,
    Commit,
    Committed,
    Declare,
    Done,
    Dump,
    Error,
    File,
    Fill,
    Freeze,
    Hello,
    Lane,
    Link,
    Map,
    Mapped,
    Received,
    Release,
    Segments,
    Sequences,
    Start,
    Stop,
    Stream,
    Tags,
    Thaw,
    Tokens,
    Welcome,
)
from ullage.memory.protocol.questions import Ask, Chain, Spots
from ullage.memory.protocol.wire import HELLO_SECONDS, Connection, LateError
from ullage.sockets import break_when_lost

_LOGGER = logging.getLogger("ullage.memory")
IDLE_SECONDS = 900.0
# A session that just ended takes a moment to notice.
_BUSY_SECONDS = 2.0
_MAX_FILE_BYTES = 1 << 40
# Connections that have not said yet what they are; more are turned away unheard.
_MAX_STRANGERS = 64


class Host(Protocol):
    """A server that an agent can stop, empty and start again."""

    def stop(self, seconds: float) -> None:
        """Let requests in flight end, hold back new ones, and drop weights and caches."""

    def begin_file(self, name: str, size: int) -> memoryview:
        """Room for a file of the declared model."""

    def start(self) -> None:
        """Serve again, from the files that came."""

    def segments(self) -> tuple[tuple[Segment, Region], ...]:
        """What memory of the server holds what."""

    def others(self) -> tuple[Segment, ...]:
        """What is in memory as well, and cannot be read: it counts for nothing."""

    def freeze(self, seconds: float) -> None:
        """Hold the server between two steps, at most so long. Raises FaultError when a step takes longer."""

    def thaw(self) -> bool:
        """Let it go on; whether it was still frozen."""

    def sequences(self) -> tuple[CacheShape, tuple[tuple[int, ...], ...]]:
        """What the key-value memory of a frozen server stands for, slot by slot."""

    def abandon(self) -> None:
        """The verifier went while the server was stopped: say so to clients instead of letting them wait."""


class Agent:
    """Answers verifiers on a socket until it is closed. `host` is the server it lives in, if any."""

    def __init__(
        self,
        keeper: Keeper,
        look: Callable[[], Inventory],
        host: Host | None = None,
    ) -> None:
        self._keeper = keeper
        self._look = look
        self._host = host
        self._busy = threading.Lock()
        self._strangers = threading.BoundedSemaphore(_MAX_STRANGERS)
        self._landing = Landing()
        self._stopped = False
        self._cached: list[int] = []

    def serve(self, listener: socket.socket) -> None:
        """Accept verifiers until the listener is closed. A second one at a time is told so."""
        listener.listen(_MAX_STRANGERS)
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            if not self._strangers.acquire(blocking=False):
                peer.close()
                continue
            break_when_lost(peer)
            threading.Thread(target=self._meet, args=(peer,), name="memory-verifier", daemon=True).start()

    def _meet(self, peer: socket.socket) -> None:
        """Hear who it is: a lane goes to the session that waits for it, a verifier gets a session."""
        connection = Connection(peer)
        landed = False
        with _refusing(connection):
            try:
                first = connection.receive(HELLO_SECONDS)
            finally:
                self._strangers.release()
            if isinstance(first, Hello | Lane) and first.version != VERSION:
                raise RefusedError(Code.VERSION)
            if isinstance(first, Lane):
                landed = self._landing.take(first, connection)
                if not landed:
                    raise MalformedError("No stream waits for this lane.")
            else:
                self._session(first, connection)
        if not landed:
            connection.close()

    def _session(self, first: Message, connection: Connection) -> None:
        """Every way in which a session can end leaves the agent ready for the next one."""
        if not isinstance(first, Hello):
            raise MalformedError("A verifier begins with hello.")
        if not self._busy.acquire(timeout=_BUSY_SECONDS):
            raise RefusedError(Code.BUSY)
        try:
            seen = self._look()
            spaces = (("main memory", self._keeper.limits[0]), *seen.devices)
            self._keeper.is_wanted = connection.has_peer
            connection.send(Welcome(VERSION, seen.machine, seen.source, spaces, seen.unreached))
            while self.handle(connection.receive(IDLE_SECONDS), connection):
                pass
        finally:
            if self._host:
                self._host.thaw()
                if self._stopped:
                    self._host.abandon()
            self._busy.release()

    @contextlib.contextmanager
    def landed(self, stream: Stream, connection: Connection) -> Iterator[list[Part]]:
        """Say that the lanes of a stream may come, and wait for them; they are closed at the end."""
        self._keeper.region(stream.space, stream.offset + stream.size)
        parts = stream.parts
        with self._landing.expecting(stream.token, len(parts)):
            connection.send(Done(stream.size))
            lanes = self._landing.wait()
            yield [(*part, lane.receive_run) for part, lane in zip(parts, lanes, strict=True)]

    def handle(self, message: Message, connection: Connection) -> bool:
        """Do what one message asks for and answer it; False at the end of a session."""
        match message:
            case Bye():
                return False
            case Release(space, size):
                self._keeper.release(space, size)
                connection.send(Mapped(size, locked=False))
            case Stream(space):
                with self.landed(message, connection) as parts:
                    connection.send(Received(tuple(self._keeper.receive(space, parts))))
            case Map(space, size):
                region = self._keeper.map(space, size)
                connection.send(Mapped(region.size, region.locked))
            case Dump(space, offset, size):
                connection.send_with(Done(size), self._keeper.fetch(space, offset, size))
            case Fill(space, size, seed, layers):
                self._keeper.fill(space, size, seed, layers)
                connection.send(Done(size))
            case Ask(space, question):
                tags = self._keeper.answer(space, question)
                connection.send(Tags(question.round_number, tuple(tags)))
            case Spots():
                connection.send(Tags(message.round_number, tuple(self._keeper.spots(message))))
            case Chain():
                connection.send(Link(self._keeper.chain(message)))
            case Stop() | File() | Start():
                self._operate(message, connection)
                connection.send(Done(0))
            case Declare() | Freeze() | Thaw() | Sequences() | Commit():
                connection.send(self._describe(message))
            case _:
                raise MalformedError(f"A verifier does not send {type(message).__name__}.")
        return True

    def _operate(self, message: Message, connection: Connection) -> None:
        if self._host is None:
            raise RefusedError(Code.IMPOSSIBLE)
        try:
            if isinstance(message, Stop):
                self._keeper.adopt(())
                self._host.stop(message.seconds)
                self._stopped = True
                self._keeper.limits = (self._look().reachable, *self._keeper.limits[1:])
            elif isinstance(message, File):
                self._take_file(self._host, message, connection)
            else:
                self._host.start()
                self._stopped = False
        except UllageError as error:
            if isinstance(error, RefusedError | LateError | MalformedError):
                raise
            _LOGGER.warning("the server: %s", error)
            raise RefusedError(Code.SERVER) from error

    def _describe(self, message: Message) -> Message:
        """Say what memory holds, and freeze or thaw the server; without one there is nothing that moves."""
        match message:
            case Declare():
                return Segments(self._declared())
            case Freeze(seconds):
                if self._host:
                    self._host.freeze(seconds)
                return Segments(self._declared())
            case Commit():
                return Committed(self._keeper.digest(self._cached))
            case Sequences():
                shape, sequences = self._host.sequences() if self._host else (NO_CACHE, ())
                return Tokens(shape, sequences)
        return Done(1 if self._host is None or self._host.thaw() else 0)

    def _take_file(self, host: Host, message: File, connection: Connection) -> None:
        if message.size > _MAX_FILE_BYTES:
            raise MalformedError("A file of the model is too long.")
        room = host.begin_file(message.name, message.size)
        connection.receive_run(room)
        if hashlib.sha256(room).digest() != message.sha256:
            raise RefusedError(Code.DIGEST)

    def _declared(self) -> tuple[Segment, ...]:
        """The map. Segment i can be read as space 128 + i. Ballast, the mapped part of space 0, is the last
        of these; then comes what cannot be read."""
        pairs = self._host.segments() if self._host else ()
        ballast = Segment(SegmentKind.BALLAST, "ballast", self._keeper.mapped(0))
        mapped = ((ballast, self._keeper.region(0)),) if ballast.size else ()
        self._keeper.adopt(tuple(region for _, region in (*pairs, *mapped)))
        self._cached = [
            FIRST_SEGMENT + index
            for index, (segment, _) in enumerate(pairs)
            if segment.kind is SegmentKind.KV_CACHE
        ]
        others = self._host.others() if self._host else ()
        return (*(segment for segment, _ in (*pairs, *mapped)), *others)


@contextlib.contextmanager
def _refusing(connection: Connection) -> Iterator[None]:
    """Tell the peer why its connection ends, as far as that is its business."""
    try:
        yield
    except RefusedError as error:
        _refuse(connection, error.code)
    except MalformedError as error:
        _LOGGER.warning("a verifier was turned away: %s", error)
        _refuse(connection, Code.MALFORMED)
    except (FaultError, LateError) as error:
        _LOGGER.warning("a session ended: %s", error)
    except UllageError as error:
        _LOGGER.warning("a session failed: %s", error)
        _refuse(connection, Code.FAULT)
    except Exception:
        _LOGGER.exception("a session failed")
        _refuse(connection, Code.FAULT)


def _refuse(connection: Connection, code: Code) -> None:
    with contextlib.suppress(UllageError):
        connection.send(Error(code))
