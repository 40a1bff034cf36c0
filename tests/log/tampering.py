"""A generator of logs that somebody bent, and whether each is rejected for the right reason.

A *kind* is a function that bends a copy of an honest log at a random place and says which
finding has to follow: `tampering_strangers` does without the log's key, `tampering_operators` with all keys.
An instance counts only if that finding is there, and no failing one that does not follow from it.
`tampering_campaign` runs many.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from tests.log.published import publish
from tests.log.samples import NEVER, chunk, closing, header, opening
from ullage.audit.seeds import SeedCheck, request_digest
from ullage.errors import UsageError
from ullage.log.entries import Entry, parse_entry
from ullage.log.findings import Finding, Severity
from ullage.log.journal.segments import Frame, Prepared, SegmentReader, encode_batch
from ullage.log.keys import Role, TapKeys, create_keys, load_tap_keys
from ullage.log.notes.checkpoint import Checkpoint, parse_checkpoint
from ullage.log.notes.cosignature import WitnessSigner
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import parse_note
from ullage.log.reader import LogReader
from ullage.log.record import OpenPart, RecordPart
from ullage.log.sealed.openers import SealKey
from ullage.log.source import DirectorySource
from ullage.log.state import Rule
from ullage.log.tree.growth import verify_growth
from ullage.log.tree.tiles import bundles_of, decode_bundle
from ullage.log.verify import verify_log
from ullage.log.writer import LogWriter
from ullage.merkle import leaf_hash, tree_root
from ullage.sampling.seeds import issue_seed

RULES = frozenset(rule.value for rule in Rule) | {"entry-malformed", "more"}
RECORDS, EARLY_RECORDS = 230, 120
WITNESSES = [WitnessSigner(f"w{number}.example", bytes([number]) * 32) for number in range(3)]


class View(Enum):
    """What the verifier has besides the log."""

    KEY = "the log's key"
    SEALS = "the key, and keys that open records"
    EARLIER = "the key, and a checkpoint that it saw before"
    WITNESSES = "a policy: the key and two of three witnesses"
    SEEDS = "keys that open records, and the seed key"


@dataclass(frozen=True)
class Expected:
    """What has to follow from an instance. `beside` are findings that may follow from the same deed."""

    reason: str
    view: View = View.KEY
    beside: frozenset[str] = frozenset()
    index: int | None = None  # the entry that the finding must name
    earlier: bytes = b""  # the checkpoint that the verifier saw before
    seed_key: bytes = b""


@dataclass
class World:
    """An honest log of one tap, an earlier state of it, and another log of the same tap."""

    folder: Path
    keys: TapKeys
    parts: list[RecordPart]  # of the entries 1, 2, …
    policy: Policy = field(init=False)
    entries: list[bytes] = field(init=False)
    parsed: list[Entry] = field(init=False)
    others: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        lines = [f"log {self.keys.log.verifier}\n"]
        lines += [f"witness {number} {witness.verifier}\n" for number, witness in enumerate(WITNESSES)]
        self.policy = Policy.parse("".join([*lines, "group two 2 0 1 2\nquorum two\n"]).encode())
        self.entries = read_entries(self.honest)
        self.parsed = [parse_entry(entry) for entry in self.entries]
        self.others = read_entries(self.folder / "other")

    @property
    def honest(self) -> Path:
        return self.folder / "log"

    @property
    def early(self) -> Path:
        """What the honest log was before."""
        return self.folder / "early"

    @property
    def origin(self) -> str:
        return parse_checkpoint(parse_note(self.note)[0]).origin

    @property
    def note(self) -> bytes:
        return (self.honest / "checkpoint").read_bytes()

    @property
    def early_note(self) -> bytes:
        return (self.early / "checkpoint").read_bytes()

    def publish(self, log: Path, entries: list[bytes], *, signed: bool) -> None:
        """Make all public files of `log` anew from entries; unsigned, its checkpoint stays as it was."""
        note = (log / "checkpoint").read_bytes()
        shutil.rmtree(log / "tile")
        publish(log, entries, self.keys.log, self.origin)
        if not signed:
            (log / "checkpoint").write_bytes(note)

    def indices(self, kind: type[Entry], first: int = 0) -> list[int]:
        """Where entries of one kind are."""
        return [at for at, entry in enumerate(self.parsed) if at >= first and isinstance(entry, kind)]


Kind = Callable[[World, Path, random.Random], Expected]


def checkpoint_of(origin: str, entries: list[bytes]) -> Checkpoint:
    """The true checkpoint over entries."""
    return Checkpoint(origin, len(entries), tree_root(map(leaf_hash, entries)))


def read_entries(log: Path) -> list[bytes]:
    """The public entries of a log, from its bundles."""
    size = parse_checkpoint(parse_note((log / "checkpoint").read_bytes())[0]).size
    bundles = [(bundle, (log / bundle.path).read_bytes()) for bundle in bundles_of(size)]
    return [entry for bundle, data in bundles for entry in decode_bundle(data, bundle.width)]


def edit_journal(log: Path, edit: Callable[[list[Frame]], list[Prepared]]) -> None:
    """Write the only segment of a journal anew, every checksum right."""
    (path,) = (log / "sealed").glob("*.segment")
    with path.open("rb") as file:
        reader = SegmentReader(file)
        frames, head = list(reader), reader.head.to_bytes()
    path.write_bytes(head + encode_batch(0, edit(frames)))


def prepared(frame: Frame) -> Prepared:
    return Prepared(frame.entry, frame.wrapped_key, frame.payload)


def with_seed(part: OpenPart, log_id: str, seed_key: bytes) -> OpenPart:
    """The open as a tap writes it: the digest of its request, the seed that follows from it."""
    request = request_digest(part, 1)
    seed = issue_seed(seed_key, log_id, part.counter, request)
    return part.model_copy(update={"request_digest": f"sha256:{request.hex()}", "seed": seed})


def honest_parts(generator: random.Random, count: int, log_id: str, keys: TapKeys) -> list[RecordPart]:
    """Records of many shapes, several in flight at a time, all closed."""
    parts: list[RecordPart] = []
    running: list[list[RecordPart]] = []
    counter = 0
    while counter < count or running:
        if counter < count and (len(running) < 2 or generator.random() < 0.3):
            stream = generator.random() < 0.5
            prompt = tuple(generator.randrange(1000) for _ in range(generator.randint(0, 9)))
            parts.append(with_seed(opening(counter, stream=stream, prompt=prompt), log_id, keys.seed))
            pieces = [
                tuple(generator.randrange(1000) for _ in range(generator.randint(1, 3)))
                for _ in range(generator.randint(0, 4))
            ]
            chunks = [chunk(counter, at, ids) for at, ids in enumerate(pieces)] if stream else []
            output = tuple(token for ids in pieces for token in ids)
            running.append([*chunks, closing(counter, output)])
            counter += 1
        else:
            record = generator.choice(running)
            parts.append(record.pop(0))
            running = [one for one in running if one]
    return parts


def make_world(folder: Path, seed: int = 1) -> World:
    """The honest log, and what it was earlier, in `folder`."""
    generator = random.Random(seed)
    create_keys(folder / "keys", Role.TAP, "tap.example/one")
    keys = load_tap_keys(folder / "keys")
    log_id = keys.new_log_id()
    parts = honest_parts(generator, EARLY_RECORDS, log_id, keys)
    more: list[RecordPart] = []
    for part in honest_parts(generator, RECORDS, log_id, keys):
        if part.counter >= EARLY_RECORDS:
            more.append(part)
            parts.append(part)
    with LogWriter.create(folder / "log", keys, header(log_id), NEVER) as writer:
        asyncio.run(writer.append_all(parts[: -len(more)]))
        writer.checkpoint()
        shutil.copytree(folder / "log", folder / "early")
        asyncio.run(writer.append_all(more))
    with LogWriter.create(folder / "other", keys, header(keys.new_log_id()), NEVER) as writer:
        asyncio.run(writer.append_all(honest_parts(generator, RECORDS, writer.header.log_id, keys)))
    return World(folder, keys, parts)


def codes(world: World, log: Path, expected: Expected) -> list[Finding]:
    """What a verifier finds. In the view of the seeds a problem becomes a finding of its own."""
    key, source = world.keys.log.verifier, DirectorySource(log)
    match expected.view:
        case View.KEY:
            return list(verify_log(source, Policy.of_key(key)).findings)
        case View.WITNESSES:
            return list(verify_log(source, world.policy).findings)
        case View.SEALS:
            return list(LogReader.open(log, key, SealKey(world.keys.seal)).verify().findings)
        case View.EARLIER:
            growth = verify_growth(source, Policy.of_key(key), (expected.earlier or world.early_note,))
            for evidence in growth.evidence:
                evidence.verify(Policy.of_key(key))  # raises unless it convicts
            found = list(growth.findings.findings)
            convicted = bool(growth.evidence)
            if convicted != any(one.code == "equivocation" for one in found):
                raise AssertionError("equivocation is found if and only if there is evidence")
            return found
        case View.SEEDS:
            return _seed_findings(world, log, expected.seed_key or world.keys.seed)


def _seed_findings(world: World, log: Path, seed_key: bytes) -> list[Finding]:
    reader = LogReader.open(log, world.keys.log.verifier, SealKey(world.keys.seal))
    found = list(reader.verify().findings)
    try:
        check = SeedCheck.of(reader.header, seed_key)
    except UsageError as error:
        return [*found, Finding("seed-commitment", Severity.FAIL, str(error))]
    for record in reader.records():
        for problem in check.problems(record):
            code = "seed" if "another seed" in problem else "request-digest"
            found.append(Finding(code, Severity.FAIL, problem))
    return found


def judge(expected: Expected, found: list[Finding]) -> str:
    """`ok`, or what is wrong with the answer."""
    failing = {finding.code for finding in found if finding.severity is Severity.FAIL}
    if not failing:
        return "accepted"
    if expected.reason not in failing:
        return f"for another reason: {sorted(failing)}"
    if surplus := failing - expected.beside - {expected.reason}:
        return f"and for others: {sorted(surplus)}"
    if expected.index is not None and all(
        finding.index != expected.index for finding in found if finding.code == expected.reason
    ):
        return "at another place"
    return "ok"
