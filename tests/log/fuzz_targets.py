"""What strangers can send to a parser of the log, and what each parser promises about it.

A target takes any bytes. It may raise what we raise on purpose (`UllageError`), and nothing else; and what it
accepts must have one spelling, so that it gives back the bytes that it was given.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.log.published import LOG, ORIGIN, TIME, header, log_entries
from tests.log.samples import chunk, closing, opening
from ullage.errors import UllageError
from ullage.log.entries import encode_entry, hand_over, parse_entry
from ullage.log.journal.segments import Prepared, SegmentHead, SegmentReader, encode_batch, written_later
from ullage.log.notes.checkpoint import Checkpoint, parse_checkpoint
from ullage.log.notes.cosignature import WitnessSigner, WitnessVerifier, add_cosignatures, open_cosigned
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import NoteSigner, NoteVerifier, open_note, parse_note
from ullage.log.record import canonical_bytes, parse_part
from ullage.log.sealed.openers import RecordKeys
from ullage.log.sealed.sealing import RecordSeal
from ullage.log.tree.growth import Equivocation
from ullage.log.tree.proof import InclusionProof
from ullage.log.tree.tile_tree import TreeEdge
from ullage.log.tree.tiles import Tile, check_tile, cut_bundle, decode_bundle, encode_bundle, parse_path
from ullage.log.witness.witness import AddCheckpoint
from ullage.merkle import leaf_hash, tree_root

SEEDS = Path(__file__).with_name("fuzz_seeds")
WITNESS = WitnessSigner("w.example", bytes(32))
POLICY = Policy.of_key(LOG.verifier)
ENTRIES = log_entries(3)
ROOT = tree_root(map(leaf_hash, ENTRIES))
NOTE = Checkpoint(ORIGIN, len(ENTRIES), ROOT).sign(LOG)
COSIGNED = add_cosignatures(NOTE, (WITNESS.cosign(parse_note(NOTE)[0], TIME),))


@dataclass(frozen=True)
class Target:
    """A parser, and a few inputs that it accepts."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]

    def allow(self, data: bytes) -> None:
        """Run it; what is refused on purpose is fine."""
        with suppress(UllageError):
            self.run(data)


def note(data: bytes) -> None:
    text, _ = parse_note(data)
    with suppress(UllageError):
        open_note(data, [LOG.verifier.named(ORIGIN)])
    with suppress(UllageError):
        open_cosigned(data, (LOG.verifier.named(ORIGIN),), (WITNESS.verifier,))
    checkpoint = parse_checkpoint(text)
    assert checkpoint.text() == text


def keys(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for kind in (NoteVerifier, WitnessVerifier):
        with suppress(UllageError):
            assert str(kind.parse(text)) == text.strip("\n")
    for signer in (NoteSigner, WitnessSigner):
        with suppress(UllageError):
            assert signer.parse(text).private_text() == text.strip("\n")


def path(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    address = parse_path(text)
    assert address is None or address.path == text


def bundle(data: bytes) -> None:
    width, rest = (data[0] or 256, data[1:]) if data else (1, b"")
    with suppress(UllageError):
        assert rest.startswith(cut_bundle(rest, width))
    assert encode_bundle(decode_bundle(rest, width)) == rest


def tile(data: bytes) -> None:
    check_tile(Tile(0, 0, 7), data)
    edge = TreeEdge()
    edge.append(data)
    assert edge.root() == tree_root([data[at : at + 32] for at in range(0, len(data), 32)])


def entry(data: bytes) -> None:
    assert encode_entry(parse_entry(data)) == data


def part(data: bytes) -> None:
    assert canonical_bytes(parse_part(data)) == data


def payload(data: bytes) -> None:
    RecordSeal(ORIGIN, 7, bytes(32)).open(0, "open", "sha256:" + "0" * 64, data)


def proof(data: bytes) -> None:
    found = InclusionProof.parse(data)
    assert found.to_bytes() == data
    found.verify(POLICY)


def evidence(data: bytes) -> None:
    Equivocation.parse(data).verify(POLICY)


def record_keys(data: bytes) -> None:
    RecordKeys.parse(data)


def request(data: bytes) -> None:
    found = AddCheckpoint.parse(data)
    assert found.to_bytes() == data
    parse_note(found.note)


def policy(data: bytes) -> None:
    found = Policy.parse(data)
    found.is_quorum([])
    found.open(NOTE)


def segment(data: bytes) -> None:
    reader = SegmentReader(io.BytesIO(data))
    frames = list(reader)
    assert [frame.index for frame in frames] == list(range(reader.head.first_index, reader.next_index))
    assert reader.end is not None
    for frame in frames:
        frame.seal_is_whole()
    written_later(io.BytesIO(data), reader.end_offset, reader.next_index)


def _segment() -> bytes:
    head = SegmentHead.first(header(), "sha256:" + "0" * 64).to_bytes()
    sealed = RecordSeal(ORIGIN, 0, bytes(32)).seal(0, opening(0), bytes(60))
    frames = encode_batch(0, [Prepared(ENTRIES[0]), Prepared(ENTRIES[1], sealed.wrapped_key, sealed.payload)])
    return head + frames + bytes(64)


def _evidence() -> bytes:
    other = Checkpoint(ORIGIN, len(ENTRIES), bytes(32)).sign(LOG)
    return Equivocation(NOTE, other, bytes(32), ()).to_bytes()


_HANDOVER = hand_over(LOG, NoteSigner("tap.example/one", bytes(32)).verifier, ORIGIN, 3)
_POLICY = (
    f"log {LOG.verifier}\nwitness w {WITNESS.verifier} https://w.example\ngroup g 1 w\nquorum g\n".encode()
)
_PARTS = (opening(0), opening(1, stream=True), chunk(1, 0, (5, 6)), closing(1, (5, 6)))

TARGETS: dict[str, Target] = {
    "note": Target(note, (NOTE, COSIGNED)),
    "keys": Target(
        keys,
        tuple(
            text.encode()
            for text in (str(LOG.verifier), LOG.private_text(), str(WITNESS.verifier), WITNESS.private_text())
        ),
    ),
    "path": Target(path, (b"tile/0/x001/x234/067", b"tile/entries/000.p/255")),
    "bundle": Target(bundle, (bytes([len(ENTRIES)]) + encode_bundle(ENTRIES),)),
    "tile": Target(tile, (bytes(7 * 32),)),
    "entry": Target(entry, (*ENTRIES[:5], encode_entry(_HANDOVER))),
    "part": Target(part, tuple(canonical_bytes(one) for one in _PARTS)),
    "payload": Target(payload, (RecordSeal(ORIGIN, 7, bytes(32)).seal(0, opening(7)).payload,)),
    "proof": Target(proof, (InclusionProof(0, ENTRIES[0], (bytes(32), bytes(32)), NOTE).to_bytes(),)),
    "evidence": Target(evidence, (_evidence(),)),
    "record-keys": Target(
        record_keys, (b'{"keys":{"7":"' + b"0" * 64 + b'"},"log_id":"tap.example/one","version":1}',)
    ),
    "request": Target(request, (AddCheckpoint(3, (bytes(32),), NOTE).to_bytes(),)),
    "policy": Target(policy, (_POLICY,)),
    "segment": Target(segment, (_segment(),)),
}
