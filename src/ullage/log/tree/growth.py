"""Does a log extend what it was before? And if it does not: evidence that anybody can check.

Two checkpoints that one key signed, of which one does not extend the other, convict the log. For trees of
different sizes the evidence holds a consistency proof that leads from *another* old root to the new one:
the newer tree had other first entries than the older checkpoint says.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from ullage.errors import IntegrityError, MalformedError
from ullage.log.findings import FindingList, LogFindings
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import MAX_NOTE_BYTES, decode_base64, encode_base64
from ullage.log.source import LogSource
from ullage.log.tree.prover import fetch_from
from ullage.log.tree.tile_tree import TileTree
from ullage.merkle import HASH_BYTES, verify_consistency

CHECKPOINT = "checkpoint"
MAX_EVIDENCE_BYTES = 4 * MAX_NOTE_BYTES
_KIND = "ullage-log-equivocation"
_FIELDS = ("kind", "later", "earlier", "proof", "root", "version")
_MAX_HASHES = 63


@dataclass(frozen=True)
class Equivocation:
    """Evidence: the earlier note, the later one, and what the later tree had where the earlier one ended."""

    earlier: bytes
    later: bytes
    root: bytes  # of the later tree's first entries, as many as the earlier one has
    proof: tuple[bytes, ...]  # that `root` and the later root belong together

    def to_bytes(self) -> bytes:
        """The file, by custom `*.equivocation`: JSON, specified in `docs/formats/witness.md`."""
        document = {
            "earlier": self.earlier.decode(),
            "kind": _KIND,
            "later": self.later.decode(),
            "proof": [encode_base64(value) for value in self.proof],
            "root": encode_base64(self.root),
            "version": 1,
        }
        return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()

    @property
    def file_name(self) -> str:
        """A name that depends on the content alone."""
        return f"{hashlib.sha256(self.to_bytes()).hexdigest()[:16]}.equivocation"

    @classmethod
    def parse(cls, data: bytes) -> Equivocation:
        """Read evidence; nothing is verified yet. Raises MalformedError."""
        try:
            document = json.loads(data) if len(data) <= MAX_EVIDENCE_BYTES else None
        except (ValueError, RecursionError) as error:
            raise MalformedError("This is not evidence of equivocation: it is not JSON.") from error
        if not isinstance(document, dict) or sorted(document) != sorted(_FIELDS):
            raise MalformedError("This is not evidence of equivocation: it has other fields.")
        if document["kind"] != _KIND or document["version"] != 1:
            raise MalformedError("This is not evidence of equivocation of version 1.")
        hashes = document["proof"]
        if not isinstance(hashes, list) or len(hashes) > _MAX_HASHES:
            raise MalformedError("The evidence has no proof, or one that is too long.")
        proof = tuple(_hash(value) for value in hashes)
        return cls(_note(document["earlier"]), _note(document["later"]), _hash(document["root"]), proof)

    def verify(self, policy: Policy) -> tuple[Checkpoint, Checkpoint]:
        """The two checkpoints that contradict each other. Raises IntegrityError when they do not."""
        earlier, later = policy.open(self.earlier).checkpoint, policy.open(self.later).checkpoint
        if earlier.origin != later.origin:
            raise IntegrityError("The two checkpoints are of different logs, which proves nothing.")
        if self.root == earlier.root:
            raise IntegrityError(
                "The later tree begins with the entries of the earlier one; nothing is wrong."
            )
        if not verify_consistency(earlier.size, self.root, later.size, later.root, self.proof):
            raise IntegrityError("The evidence does not show what the later tree begins with.")
        return earlier, later


@dataclass(frozen=True)
class GrowthFindings:
    """The result of holding a log against checkpoints that it signed before."""

    findings: LogFindings
    evidence: tuple[Equivocation, ...]


def verify_growth(source: LogSource, policy: Policy, earlier: tuple[bytes, ...]) -> GrowthFindings:
    """Whether the log extends each of the `earlier` checkpoints (signed notes). Entries are not read.

    What is wrong is in the findings. Raises FaultError when the source fails.
    """
    report = FindingList()
    evidence: list[Equivocation] = []
    now = note = None
    try:
        note = source.read(CHECKPOINT, MAX_NOTE_BYTES)
        if note is None:
            report.conclude("no-checkpoint", "The log has no checkpoint: nothing in it is signed.")
        else:
            opened = policy.open(note)
            now = opened.checkpoint
            if not policy.is_quorum(one.witness for one in opened.cosignatures):
                sentence = "The checkpoint does not have the cosignatures that the policy needs."
                report.conclude("not-witnessed", sentence)
    except IntegrityError as error:
        report.conclude("bad-signature", f"The checkpoint cannot be trusted: {error}")
    if now is not None and note is not None:
        comparison = _Comparison(report, policy, now, note, TileTree(now.size, fetch_from(source)))
        evidence = [found for one in earlier if (found := comparison.check(one)) is not None]
    covered = 0 if now is None or report.whole else now.size
    findings = LogFindings(report.all(), None, now, 0, covered, 0, 0, 0, False, None, None)
    return GrowthFindings(findings, tuple(evidence))


@dataclass(frozen=True)
class _Comparison:
    """One checkpoint, and the tree under it, to hold earlier ones against."""

    report: FindingList
    policy: Policy
    now: Checkpoint
    note: bytes
    tree: TileTree

    def check(self, earlier: bytes) -> Equivocation | None:
        try:
            old = self.policy.open(earlier).checkpoint
        except IntegrityError as error:
            self.report.conclude("bad-signature", f"An earlier checkpoint cannot be trusted: {error}")
            return None
        now = self.now
        if old.origin != now.origin:
            sentence = f"The earlier checkpoint is of {old.origin}, the log is {now.origin}."
            self.report.conclude("origin-mismatch", sentence)
            return None
        if old.size > now.size:
            sentence = f"The log signed {old.size} entries before, and shows {now.size} now: it was cut back."
            self.report.conclude("rolled-back", sentence)
            return None
        return self._compare(old, earlier)

    def _compare(self, old: Checkpoint, earlier: bytes) -> Equivocation | None:
        now = self.now
        root = now.root
        proof: tuple[bytes, ...] = ()
        if old.size < now.size:
            try:
                root, proof = self.tree.root(old.size), self.tree.consistency_proof(old.size)
            except IntegrityError as error:
                self.report.conclude("tile-missing", str(error))
                return None
        if not verify_consistency(old.size, root, now.size, now.root, proof):
            sentence = "The hash tiles are not those of the signed checkpoint, so growth cannot be checked."
            self.report.conclude("tile-mismatch", sentence)
            return None
        if root == old.root:
            return None
        sentence = (
            f"The log's key signed two histories: the first {old.size} entries are not those of before."
        )
        self.report.conclude("equivocation", sentence)
        return Equivocation(earlier, self.note, root, proof)


def _note(value: object) -> bytes:
    if not isinstance(value, str):
        raise MalformedError("The evidence has a checkpoint that is not text.")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise MalformedError("The evidence has a checkpoint that is not Unicode.") from error


def _hash(value: object) -> bytes:
    data = decode_base64(value) if isinstance(value, str) else None
    if data is None or len(data) != HASH_BYTES:
        raise MalformedError("The evidence has something else where a hash is expected.")
    return data
