"""A stage for enforcement: one enforcer, one set of keys, and taps whose logs all begin as the same one.

The tap issues seeds from its key, the log's id and a record's counter. So that different servers meet the
same seeds, every tap goes on with a copy of one log that holds a header and nothing else; nothing in the tap
is switched off or told what it is used for.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ullage.enforce.accounting import Ledger
from ullage.errors import FaultError
from ullage.log.keys import Role, create_keys, load_verifier
from ullage.log.reader import LogReader
from ullage.log.record import HeaderPart, Record
from ullage.log.sealed.openers import load_opener
from ullage.programs import Program
from ullage.redteam.enforced.client import Ask, Received, converse

SERVER_NICENESS = 10
"""A server has a machine of its own; where it shares ours, being busy must not slow tap and enforcer."""
DTYPE = "bfloat16"
"""What the stage's taps declare of the server: the weakest promise there is."""


@dataclass(frozen=True)
class Server:
    """A server to put behind a tap: `python -m MODULE ARGUMENTS --listen …`."""

    name: str
    arguments: tuple[str, ...]
    module: str = "ullage"


@dataclass(frozen=True)
class Run:
    """What clients got of one server, and what the tap wrote down. Answers and records in one order."""

    name: str
    received: tuple[Received, ...]
    header: HeaderPart
    records: tuple[Record, ...]
    alarms: str
    """What the tap told its operator."""

    @property
    def tokens(self) -> int:
        return sum(len(record.output_ids) for record in self.records)

    @property
    def lateness(self) -> Ledger:
        """The tap's count of late slots."""
        return Ledger.of(record.close.detail for record in self.records if record.close)


@dataclass(frozen=True)
class Stage:
    """Where everything is. `enforced` False: the same taps without an enforcer, for comparison."""

    folder: Path
    model: Path
    socket: Path

    async def play(
        self,
        server: Server,
        asks: Sequence[Ask],
        at_once: int,
        *options: str,
        enforced: bool = True,
        label: str = "",
    ) -> Run:
        """Put the server behind a tap of its own and let clients ask. `options` go to `ullage tap`."""
        place = self.folder / (label or server.name)
        place.mkdir(parents=True)
        log = place / "log"
        begun = self.folder / ("enforced" if enforced else "plain")
        if not begun.exists():
            await self.begin_log(begun, enforced=enforced)
        shutil.copytree(begun, log)
        listen = ("--listen", "127.0.0.1:0")
        arguments = (*server.arguments, *listen)
        async with Program(arguments, place / "server.txt", server.module, SERVER_NICENESS) as behind:
            tap = [
                "tap",
                "--upstream",
                behind.where,
                "--log",
                str(log),
                *self._tap_options(enforced),
                *listen,
            ]
            async with Program([*tap, *options], place / "tap.txt") as front:
                received = await converse(front.where, asks, at_once)
            alarms = front.complaints
        header, records = self._read(log)
        return Run(server.name, tuple(received), header, records, alarms)

    def _tap_options(self, enforced: bool) -> list[str]:
        options = ["--keys", str(self.folder / "keys"), "--model", str(self.model), "--dtype", DTYPE]
        return [*options, "--enforce", str(self.socket)] if enforced else options

    def _read(self, log: Path) -> tuple[HeaderPart, tuple[Record, ...]]:
        keys = self.folder / "keys"
        reader = LogReader.open(log, load_verifier(keys / "log.pub"), load_opener(keys))
        findings = reader.verify()
        if not findings.integrity:
            raise FaultError(f"The log in {log} is not sound: {findings.verdict}.")
        return reader.header, tuple(sorted(reader.records(), key=lambda record: record.counter))

    async def begin_log(self, log: Path, *, enforced: bool) -> None:
        """Make the log that all taps go on with: a tap that nobody asks anything."""
        tap = ["tap", "--upstream", "http://127.0.0.1:9", "--log", str(log), *self._tap_options(enforced)]
        async with Program([*tap, "--listen", "127.0.0.1:0"], log.with_suffix(".txt")):
            pass


@contextlib.asynccontextmanager
async def stage(folder: Path, model: Path, threads: int = 1) -> AsyncIterator[Stage]:
    """A stage in `folder`, which must not exist yet. Raises UllageError."""
    folder.mkdir(parents=True)
    create_keys(folder / "keys", Role.TAP)
    found = Stage(folder, model, folder / "enforcer.sock")
    enforcer = ["enforcer", "--socket", str(found.socket), "--model", str(model), "--threads", str(threads)]
    async with Program(enforcer, folder / "enforcer.txt"):
        await found.begin_log(found.folder / "enforced", enforced=True)
        yield found


def honest(model: Path, dtype: str, max_batch: int = 32) -> Server:
    """`ullage serve` in that precision."""
    batch = str(max_batch)
    return Server(f"honest-{dtype}", ("serve", "--model", str(model), "--dtype", dtype, "--max-batch", batch))


def cheating(
    name: str, model: Path, payload: Path | None = None, dtype: str = "bfloat16", max_batch: int = 32
) -> Server:
    """`ullage redteam serve NAME`."""
    arguments = [
        "redteam",
        "serve",
        name,
        "--model",
        str(model),
        "--dtype",
        dtype,
        "--max-batch",
        str(max_batch),
    ]
    if payload is not None:
        arguments += ["--payload", str(payload)]
    return Server(name, tuple(arguments))
