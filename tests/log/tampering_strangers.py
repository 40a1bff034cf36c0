"""Kinds of tampering by somebody who can write to the files and has no key."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

from tests.log.tampering import RULES, Expected, Kind, View, World, checkpoint_of, edit_journal, prepared
from ullage.log.entries import KeyEntry, encode_entry, hand_over
from ullage.log.journal.segments import Frame, Prepared
from ullage.log.notes.checkpoint import Checkpoint, parse_checkpoint
from ullage.log.notes.signed_note import NoteSigner, parse_note
from ullage.log.tree.tiles import TILE_WIDTH, Tile, bundles_of, encode_bundle, tiles_of

SHIFTED = RULES | {"tile-mismatch", "root-mismatch", "tile-missing"}


def _flip_hex(entry: bytes, generator: random.Random) -> bytes:
    """Another digest of the same form."""
    place = generator.choice([at for m in re.finditer(rb"[0-9a-f]{64}", entry) for at in range(*m.span())])
    digit = generator.choice([d for d in b"0123456789abcdef" if d != entry[place]])
    return entry[:place] + bytes([digit]) + entry[place + 1 :]


def _put_bundles(world: World, log: Path, entries: list[bytes]) -> None:
    """Bundles with other entries, hash tiles as they were."""
    for bundle in bundles_of(len(entries)):
        start = bundle.index * TILE_WIDTH
        (log / bundle.path).write_bytes(encode_bundle(entries[start : start + bundle.width]))


def edit(world: World, log: Path, generator: random.Random) -> Expected:
    entries, at = list(world.entries), generator.randrange(len(world.entries))
    entries[at] = _flip_hex(entries[at], generator)
    _put_bundles(world, log, entries)
    return Expected("root-mismatch", index=at)


def edit_with_tiles(world: World, log: Path, generator: random.Random) -> Expected:
    entries, at = list(world.entries), generator.randrange(len(world.entries))
    entries[at] = _flip_hex(entries[at], generator)
    world.publish(log, entries, signed=False)
    return Expected("root-mismatch")


def respell(world: World, log: Path, generator: random.Random) -> Expected:
    entries, at = list(world.entries), generator.randrange(len(world.entries))
    spellings = [(b'":', b'": '), (b"sha256:", b"SHA256:"), (b",", b" ,"), (b'"version":2', b'"version":2.0')]
    old, new = generator.choice(spellings)
    entries[at] = entries[at].replace(old, new, 1)
    _put_bundles(world, log, entries)
    return Expected("entry-malformed", beside=SHIFTED, index=at)


def drop(world: World, log: Path, generator: random.Random) -> Expected:
    entries = list(world.entries)
    del entries[generator.randrange(len(entries))]
    world.publish(log, entries, signed=False)
    return Expected("entries-missing", beside=SHIFTED)


def drop_and_pad(world: World, log: Path, generator: random.Random) -> Expected:
    entries = list(world.entries)
    del entries[generator.randrange(len(entries))]
    entries.append(generator.choice(entries[1:]))
    world.publish(log, entries, signed=False)
    return Expected("root-mismatch", beside=SHIFTED)


def insert(world: World, log: Path, generator: random.Random) -> Expected:
    """An entry of the log is said twice; what no longer fits falls off the end."""
    entries = list(world.entries)
    entries.insert(generator.randrange(1, len(entries)), generator.choice(entries[1:]))
    world.publish(log, entries[: len(world.entries)], signed=False)
    same = entries[: len(world.entries)] == world.entries
    return edit(world, log, generator) if same else Expected("root-mismatch", beside=SHIFTED)


def reorder(world: World, log: Path, generator: random.Random) -> Expected:
    entries = list(world.entries)
    one, other = sorted(generator.sample(range(len(entries)), 2))
    entries[one], entries[other] = entries[other], entries[one]
    _put_bundles(world, log, entries)
    return Expected("root-mismatch", beside=SHIFTED, index=one)


def truncate_bundle(world: World, log: Path, generator: random.Random) -> Expected:
    path = log / generator.choice(list(bundles_of(len(world.entries)))).path
    data = path.read_bytes()
    path.write_bytes(data[: generator.randrange(len(data))])
    return Expected("bundle-malformed", beside=SHIFTED | {"entries-missing"})


def lose_bundles(world: World, log: Path, generator: random.Random) -> Expected:
    bundles = list(bundles_of(len(world.entries)))
    for bundle in bundles[generator.randrange(len(bundles)) :]:
        (log / bundle.path).unlink()
    return Expected("entries-missing", beside=SHIFTED)


def splice(world: World, log: Path, generator: random.Random) -> Expected:
    """A run of entries of another log of the same tap."""
    entries = list(world.entries)
    start = generator.randrange(1, min(len(entries), len(world.others)) - 1)
    end = generator.randrange(start + 1, min(len(entries), len(world.others)))
    entries[start:end] = world.others[start:end]
    world.publish(log, entries, signed=False)
    return Expected("root-mismatch", beside=SHIFTED)


def swap_commitments(world: World, log: Path, generator: random.Random) -> Expected:
    """Two records exchange what they are committed to."""
    entries = list(world.entries)
    one, other = sorted(generator.sample(range(1, len(entries)), 2))
    commitments = [re.findall(rb"sha256:[0-9a-f]{64}", entries[at])[0] for at in (one, other)]
    entries[one] = entries[one].replace(commitments[0], commitments[1])
    entries[other] = entries[other].replace(commitments[1], commitments[0])
    _put_bundles(world, log, entries)
    return Expected("root-mismatch", index=one)


def swap_bundles(world: World, log: Path, generator: random.Random) -> Expected:
    full = [bundle.path for bundle in bundles_of(len(world.entries)) if bundle.width == TILE_WIDTH]
    one, other = (log / path for path in generator.sample(full, 2))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return Expected("root-mismatch", beside=SHIFTED)


def break_length(world: World, log: Path, generator: random.Random) -> Expected:
    bundle = generator.choice(list(bundles_of(len(world.entries))))
    entries = world.entries[bundle.index * TILE_WIDTH :][: bundle.width]
    at = sum(2 + len(entry) for entry in entries[: generator.randrange(len(entries))])
    data = bytearray((log / bundle.path).read_bytes())
    length = int.from_bytes(data[at : at + 2], "big")
    data[at : at + 2] = generator.choice([n for n in range(400) if n != length]).to_bytes(2, "big")
    (log / bundle.path).write_bytes(data)
    return Expected("bundle-malformed", beside=SHIFTED | {"entries-missing"})


def alter_tile(world: World, log: Path, generator: random.Random) -> Expected:
    tile = generator.choice(list(tiles_of(len(world.entries))))
    data = bytearray((log / tile.path).read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    (log / tile.path).write_bytes(data)
    return Expected("tile-mismatch")


def lose_tile(world: World, log: Path, generator: random.Random) -> Expected:
    tile: Tile = generator.choice(list(tiles_of(len(world.entries))))
    (log / tile.path).unlink()
    return Expected("tile-missing")


def alter_checkpoint(world: World, log: Path, generator: random.Random) -> Expected:
    """Another size, root or signature: one bit of the note, or a number in it."""
    data = bytearray(world.note)
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    (log / "checkpoint").write_bytes(data)
    return Expected("bad-signature")


def old_signature(world: World, log: Path, generator: random.Random) -> Expected:
    """A true signature of the key, under a text that it did not sign."""
    now, early = (parse_checkpoint(parse_note(note)[0]) for note in (world.note, world.early_note))
    size = generator.choice([now.size, generator.randrange(early.size + 1, now.size)])
    text = Checkpoint(now.origin, size, generator.choice([now.root, early.root])).text()
    line = generator.choice([world.early_note] if size == now.size else [world.note, world.early_note])
    (log / "checkpoint").write_bytes(text.encode() + b"\n" + line.split(b"\n\n")[1])
    return Expected("bad-signature")


def another_key(world: World, log: Path, generator: random.Random) -> Expected:
    """A history of one's own, signed by a key of the right name."""
    entries = [world.entries[0], *world.entries[1 : generator.randrange(2, len(world.entries))]]
    forger = NoteSigner(world.keys.log.name, generator.randbytes(32))
    world.publish(log, entries, signed=False)
    (log / "checkpoint").write_bytes(checkpoint_of(world.origin, entries).sign(forger))
    return Expected("bad-signature")


def forged_handover(world: World, log: Path, generator: random.Random) -> Expected:
    """The log is said to be handed over to one's own key; the old key's signature is another one's."""
    entries = list(world.entries)
    forger = NoteSigner(world.keys.log.name, generator.randbytes(32))
    entry = hand_over(forger, forger.verifier, world.origin, len(entries))
    forged = KeyEntry(entry.new_key, str(world.keys.log.verifier), entry.signature)
    entries.append(encode_entry(forged))
    world.publish(log, entries, signed=False)
    (log / "checkpoint").write_bytes(checkpoint_of(world.origin, entries).sign(forger))
    return Expected("key-handover", beside=frozenset({"bad-signature"}), index=len(entries) - 1)


def roll_back(world: World, log: Path, generator: random.Random) -> Expected:
    """A true older state, to somebody who saw a later one."""
    shutil.rmtree(log)
    shutil.copytree(world.early, log)
    return Expected("rolled-back", View.EARLIER, earlier=world.note)


def no_checkpoint(world: World, log: Path, generator: random.Random) -> Expected:
    (log / "checkpoint").unlink()
    return Expected("no-checkpoint")


def swap_payloads(world: World, log: Path, generator: random.Random) -> Expected:
    """Two records exchange what is sealed; every checksum is made right."""

    def swap(frames: list[Frame]) -> list[Prepared]:
        made = [prepared(frame) for frame in frames]
        one, other = generator.sample(range(1, len(frames)), 2)
        made[one] = made[one]._replace(payload=frames[other].payload)
        made[other] = made[other]._replace(payload=frames[one].payload)
        return made

    edit_journal(log, swap)
    return Expected("seal-broken", View.SEALS)


def swap_record_keys(world: World, log: Path, generator: random.Random) -> Expected:
    def swap(frames: list[Frame]) -> list[Prepared]:
        made = [prepared(frame) for frame in frames]
        one, other = generator.sample([frame.index for frame in frames if frame.wrapped_key], 2)
        made[one] = made[one]._replace(wrapped_key=frames[other].wrapped_key)
        made[other] = made[other]._replace(wrapped_key=frames[one].wrapped_key)
        return made

    edit_journal(log, swap)
    return Expected("seal-broken", View.SEALS)


def alter_payload(world: World, log: Path, generator: random.Random) -> Expected:
    """A bit of something sealed, and its checksum made right."""

    def flip(frames: list[Frame]) -> list[Prepared]:
        made = [prepared(frame) for frame in frames]
        at = generator.randrange(1, len(frames))
        payload = bytearray(made[at].payload)
        payload[generator.randrange(len(payload))] ^= 1 << generator.randrange(8)
        made[at] = made[at]._replace(payload=bytes(payload))
        return made

    edit_journal(log, flip)
    return Expected("seal-broken", View.SEALS)


def alter_journal_entry(world: World, log: Path, generator: random.Random) -> Expected:
    """The journal says something else than the published log."""

    def change(frames: list[Frame]) -> list[Prepared]:
        made = [prepared(frame) for frame in frames]
        at = generator.randrange(1, len(frames))
        made[at] = made[at]._replace(entry=_flip_hex(made[at].entry, generator))
        return made

    edit_journal(log, change)
    return Expected("journal-damaged", View.SEALS)


STRANGERS: dict[str, Kind] = {
    "edit an entry": edit,
    "edit an entry, and the tiles to fit": edit_with_tiles,
    "spell an entry in another way": respell,
    "drop an entry": drop,
    "drop an entry, and fill up": drop_and_pad,
    "say an entry twice": insert,
    "reorder entries": reorder,
    "truncate a bundle": truncate_bundle,
    "truncate the log": lose_bundles,
    "splice in another log": splice,
    "swap commitments": swap_commitments,
    "swap bundles": swap_bundles,
    "break a length prefix": break_length,
    "alter a hash tile": alter_tile,
    "remove a hash tile": lose_tile,
    "alter the checkpoint": alter_checkpoint,
    "put an old signature under a new text": old_signature,
    "re-sign with another key": another_key,
    "hand the log over to another key": forged_handover,
    "roll back to an older state": roll_back,
    "remove the checkpoint": no_checkpoint,
    "swap sealed payloads": swap_payloads,
    "swap record keys": swap_record_keys,
    "alter a sealed payload": alter_payload,
    "alter an entry of the journal": alter_journal_entry,
}
