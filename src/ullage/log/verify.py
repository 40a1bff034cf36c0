"""Checking a published log from its files alone, as a stranger does who holds the log's key or a policy.

Everything that the checkpoint signs is read once, in order. Nothing is trusted that its signature does not
cover, and nothing that is missing counts as a pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ullage.errors import IntegrityError, MalformedError
from ullage.log.entries import KeyEntry
from ullage.log.findings import FindingList, LogFindings, Severity
from ullage.log.notes.checkpoint import Checkpoint, parse_checkpoint, signs_for
from ullage.log.notes.cosignature import CosignedCheckpoint, WitnessVerifier
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import MAX_NOTE_BYTES, NoteVerifier, open_note, parse_note
from ullage.log.scan import LogScan
from ullage.log.source import LogSource

CHECKPOINT = "checkpoint"
COSIGNED = "cosigned"  # the last checkpoint that witnesses cosigned, where `checkpoint` is newer
SELF_VOUCHED = (
    "The key was found beside the log, so the log vouches for itself; give the tap's key with --key."
)


@dataclass(frozen=True)
class _Notes:
    """The checkpoint to judge by, and an older one that may have more of the witnesses' signatures."""

    checkpoint: Checkpoint
    signed: bool  # by a key of the policy; if not, the log may have been handed over to the key that signed
    note: bytes
    cosigned: bytes | None
    mark: int | None  # the size that the older one names


def verify_log(
    source: LogSource,
    policy: Policy,
    *,
    self_vouched: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LogFindings:
    """Check a whole log; what is wrong with it is in the findings. Raises FaultError.

    `progress` is called with the entries that were read, and with how many there are.
    """
    report = FindingList()
    if self_vouched:
        report.conclude("key-from-log", SELF_VOUCHED, Severity.NOTE)
    notes = _read_notes(source, policy, report)
    if notes is None:
        return _nothing(report, None, self_vouched)
    checkpoint = notes.checkpoint
    if checkpoint.size == 0:
        report.conclude("empty", "The checkpoint signs an empty log, which shows nothing.")
        return _nothing(report, checkpoint if notes.signed else None, self_vouched)
    marks = frozenset() if notes.mark is None else frozenset({notes.mark})
    scan = LogScan(source, checkpoint.size, report, marks, progress)
    scan.run()
    known = _follow_keys(notes, scan.handovers, policy, report)
    sound = _compare(scan, checkpoint, report) and known is not None
    witnessed = None
    if sound and known is not None and known.quorum is not None:
        witnessed = _check_witnesses(scan, _witnessed(notes, known), checkpoint, report)
    return LogFindings(
        findings=report.all(),
        header=scan.state.header,
        checkpoint=checkpoint if known is not None else None,
        entries=scan.entries,
        covered=checkpoint.size if sound else 0,
        opened=scan.state.next_counter,
        closed=scan.state.closed,
        aborted=scan.state.aborted,
        self_vouched=self_vouched,
        first_time=scan.first_time,
        last_time=scan.last_time,
        verdicts=tuple(scan.verdicts),
        witnessed=0 if witnessed is None else witnessed.checkpoint.size,
        cosignatures=() if witnessed is None else witnessed.cosignatures,
    )


def _read_notes(source: LogSource, policy: Policy, report: FindingList) -> _Notes | None:
    try:
        note = source.read(CHECKPOINT, MAX_NOTE_BYTES)
    except MalformedError as error:
        _add_bad_signature(report, str(error))
        return None
    if note is None:
        report.conclude("no-checkpoint", "The log has no checkpoint: nothing in it is signed.")
        return None
    try:
        opened = policy.open(note)
    except IntegrityError as error:
        if not _may_be_successor(note, policy):
            _add_bad_signature(report, str(error))
            return None
        return _Notes(parse_checkpoint(parse_note(note)[0]), False, note, *_read_cosigned(source, policy))
    if policy.is_quorum(_cosigners(opened)):
        return _Notes(opened.checkpoint, True, note, None, None)
    return _Notes(opened.checkpoint, True, note, *_read_cosigned(source, policy))


def _read_cosigned(source: LogSource, policy: Policy) -> tuple[bytes | None, int | None]:
    """The note of the last cosigned checkpoint and its size, not verified yet; None where it is no use."""
    if policy.quorum is None:
        return None, None
    try:
        note = source.read(COSIGNED, MAX_NOTE_BYTES)
        return (None, None) if note is None else (note, parse_checkpoint(parse_note(note)[0]).size)
    except MalformedError:
        return None, None


def _may_be_successor(note: bytes, policy: Policy) -> bool:
    """Whether a key that is not ours signed in the log's name: the log may hand over to it somewhere."""
    try:
        text, signatures = parse_note(note)
        origin = parse_checkpoint(text).origin
    except MalformedError:
        return False
    ours = {log.key.named(origin).key_id for log in policy.logs if signs_for(log.key.name, origin)}
    names = {signature.key_id for signature in signatures if signature.name == origin}
    return bool(ours) and bool(names) and not ours & names


def _follow_keys(
    notes: _Notes, handovers: list[KeyEntry], policy: Policy, report: FindingList
) -> Policy | None:
    """The policy with the log's last key in it; None unless that key signed and one of ours leads to it."""
    if not handovers:
        if not notes.signed:
            _add_bad_signature(report, "it is not signed by the key that was given.")
        return policy if notes.signed else None
    keys = [handovers[0].old_key, *(handover.new_key for handover in handovers)]
    public = {NoteVerifier.parse(key).public for key in keys}
    if not any(log.key.public in public for log in policy.logs):
        reason = "the log was handed from key to key, and none of them is one that was given."
        _add_bad_signature(report, reason)
        return None
    last = NoteVerifier.parse(handovers[-1].new_key)
    try:
        open_note(notes.note, [last.named(notes.checkpoint.origin)])
    except IntegrityError:
        sentence = "The checkpoint is not signed by the key to which the log was handed over within it."
        report.conclude("retired-key", sentence)
        return None
    sentence = f"The log was handed over to another key; from now on it is {last}."
    report.conclude("key-changed", sentence, Severity.NOTE)
    return policy.with_log(last)


def _compare(scan: LogScan, checkpoint: Checkpoint, report: FindingList) -> bool:
    """Whether the entries are those that the checkpoint names."""
    size = checkpoint.size
    header = scan.state.header
    if header is None:
        report.conclude("header-missing", "The log has no header, so nothing says what was declared.")
    elif header.log_id != checkpoint.origin:
        report.conclude("origin-mismatch", "The checkpoint was signed for another log than the header names.")
    if scan.edge.size < size:
        sentence = f"{size} entries were signed and only {scan.edge.size} can be checked: the log was cut."
        report.conclude("entries-missing", sentence)
        return False
    if scan.roots[size] != checkpoint.root:
        _add_root_mismatch(scan, checkpoint, report)
        return False
    if scan.tile_edge is not None:
        index = scan.first_difference or 0
        sentence = f"The hash tiles are not those of the signed entries, from entry {index} on."
        report.conclude("tile-mismatch", sentence, index=index)
    if scan.entries < size:
        return False
    if scan.state.in_flight:
        sentence = (
            f"{len(scan.state.in_flight)} records have no close within the signed entries; "
            "they count as not recorded."
        )
        report.conclude("still-open", sentence, Severity.NOTE)
    return True


def _add_root_mismatch(scan: LogScan, checkpoint: Checkpoint, report: FindingList) -> None:
    sentence = f"The {checkpoint.size} entries are not those that were signed: "
    index = None
    if scan.tile_edge is not None and scan.tile_edge.root() == checkpoint.root:
        index = scan.first_difference
        sentence += f"the first that was altered is entry {index}."
    else:
        sentence += "one was altered, or another log's are shown."
    report.conclude("root-mismatch", sentence, index=index)


def _witnessed(notes: _Notes, policy: Policy) -> CosignedCheckpoint | None:
    """The newest checkpoint that a quorum of witnesses cosigned."""
    for note in (notes.note, notes.cosigned):
        try:
            opened = None if note is None else policy.open(note)
        except IntegrityError:
            continue
        if opened is not None and policy.is_quorum(_cosigners(opened)):
            return opened
    return None


def _check_witnesses(
    scan: LogScan, witnessed: CosignedCheckpoint | None, checkpoint: Checkpoint, report: FindingList
) -> CosignedCheckpoint | None:
    """What witnesses saw, if the log extends it."""
    if witnessed is None:
        report.conclude(
            "not-witnessed", "No checkpoint of the log has the cosignatures that the policy needs."
        )
        return None
    old = witnessed.checkpoint
    if old.size > checkpoint.size:
        sentence = f"Witnesses saw {old.size} entries, and the log now shows {checkpoint.size}: it was cut."
        report.conclude("rolled-back", sentence)
        return None
    if old.origin != checkpoint.origin or (old.size and scan.roots[old.size] != old.root):
        sentence = (
            f"The log's key signed two histories: the {old.size} entries that witnesses saw are others than "
            "those that are shown."
        )
        report.conclude("equivocation", sentence)
        return None
    if old.size < checkpoint.size:
        sentence = f"{checkpoint.size - old.size} entries after the last cosigned checkpoint have no witness."
        report.conclude("not-witnessed", sentence, Severity.UNSURE, old.size)
    return witnessed


def _cosigners(opened: CosignedCheckpoint) -> list[WitnessVerifier]:
    return [cosignature.witness for cosignature in opened.cosignatures]


def _add_bad_signature(report: FindingList, reason: str) -> None:
    report.conclude("bad-signature", f"The checkpoint cannot be trusted: {reason}")


def _nothing(report: FindingList, checkpoint: Checkpoint | None, self_vouched: bool) -> LogFindings:
    return LogFindings(report.all(), None, checkpoint, 0, 0, 0, 0, 0, self_vouched, None, None)
