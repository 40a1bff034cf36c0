"""Kinds of tampering by the log's operator, who holds all of its keys and signs whatever is shown."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.log.published import TIME, header, publish
from tests.log.tampering import (
    RULES,
    WITNESSES,
    Expected,
    Kind,
    View,
    World,
    checkpoint_of,
    edit_journal,
    prepared,
)
from ullage.log.entries import (
    ChunkEntry,
    CloseEntry,
    OpenEntry,
    RecordEntry,
    VerdictEntry,
    encode_entry,
    entry_of,
    hand_over,
    parse_entry,
)
from ullage.log.journal.segments import Frame, Prepared
from ullage.log.notes.cosignature import WitnessSigner, add_cosignatures
from ullage.log.notes.signed_note import NoteSigner, parse_note
from ullage.log.record import ChunkPart, ClosePart, OpenPart, RecordPart
from ullage.log.sealed.openers import SealKey
from ullage.log.sealed.sealing import RecordSeal
from ullage.sampling.seeds import issue_seed


def reuse_counter(world: World, log: Path, generator: random.Random) -> Expected:
    entries = list(world.entries)
    at = generator.choice(world.indices(OpenEntry)[1:])
    entry = world.parsed[at]
    assert isinstance(entry, OpenEntry)
    entries[at] = encode_entry(entry._replace(counter=generator.randrange(entry.counter)))
    world.publish(log, entries, signed=True)
    return Expected("counter-repeated", beside=RULES, index=at)


def skip_counter(world: World, log: Path, generator: random.Random) -> Expected:
    """A record is left out, and the log signed without it."""
    counter = generator.randrange(len(world.indices(OpenEntry)) - 1)
    kept = [at for at, entry in enumerate(world.parsed) if not _of(entry, counter)]
    world.publish(log, [world.entries[at] for at in kept], signed=True)
    return Expected("counter-gap")


def replay_record(world: World, log: Path, generator: random.Random) -> Expected:
    """A whole record once more, at the end."""
    counter = generator.randrange(len(world.indices(OpenEntry)))
    again = [data for data, entry in zip(world.entries, world.parsed, strict=True) if _of(entry, counter)]
    world.publish(log, world.entries + again, signed=True)
    return Expected("counter-repeated", index=len(world.entries))


def part_after_close(world: World, log: Path, generator: random.Random) -> Expected:
    entries = list(world.entries)
    close = generator.choice(world.indices(CloseEntry))
    at = generator.randrange(close + 1, len(entries) + 1)
    entries.insert(at, entries[close])
    world.publish(log, entries, signed=True)
    return Expected("part-after-close", index=at)


def part_without_open(world: World, log: Path, generator: random.Random) -> Expected:
    entries = list(world.entries)
    at = generator.randrange(1, len(entries) + 1)
    far = len(world.indices(OpenEntry)) + generator.randrange(1000)
    entry = world.parsed[generator.choice(world.indices(CloseEntry))]
    assert isinstance(entry, CloseEntry)
    entries.insert(at, encode_entry(entry._replace(counter=far)))
    world.publish(log, entries, signed=True)
    return Expected("part-without-open", index=at)


def lose_chunk(world: World, log: Path, generator: random.Random) -> Expected:
    """A chunk of a stream that has later ones is left out."""
    chunks = {(e.counter, e.chunk): at for at, e in enumerate(world.parsed) if isinstance(e, ChunkEntry)}
    counter, number = generator.choice([key for key in chunks if (key[0], key[1] + 1) in chunks])
    at = chunks[counter, number]
    world.publish(log, world.entries[:at] + world.entries[at + 1 :], signed=True)
    return Expected("chunk-order", index=chunks[counter, number + 1] - 1)


def second_header(world: World, log: Path, generator: random.Random) -> Expected:
    """The log declares something else in its middle."""
    entries = list(world.entries)
    at = generator.randrange(1, len(entries) + 1)
    entries.insert(at, encode_entry(header(world.origin)))
    world.publish(log, entries, signed=True)
    return Expected("header-repeated", index=at)


def fork(world: World, log: Path, generator: random.Random) -> Expected:
    """An early entry is another one than was signed; the log grew since."""
    entries = _forked(world, generator)
    world.publish(log, entries, signed=True)
    return Expected("equivocation", View.EARLIER)


def fork_same_size(world: World, log: Path, generator: random.Random) -> Expected:
    world.publish(log, _forked(world, generator), signed=True)
    return Expected("equivocation", View.EARLIER, earlier=world.note)


def cut_and_sign(world: World, log: Path, generator: random.Random) -> Expected:
    """The end is cut off, and the rest signed anew."""
    size = generator.randrange(1, len(world.entries))
    world.publish(log, world.entries[:size], signed=True)
    return Expected("rolled-back", View.EARLIER, earlier=world.note)


def erase_verdict(world: World, log: Path, generator: random.Random) -> Expected:
    """A verdict was in the log when somebody looked; it is there no more."""
    verdict = encode_entry(VerdictEntry(f"sha256:{generator.randbytes(32).hex()}"))
    at = generator.randrange(1, len(world.entries))
    with_verdict = [*world.entries[:at], verdict, *world.entries[at:]]
    seen = checkpoint_of(world.origin, with_verdict[: generator.randrange(at + 1, len(world.entries))])
    return Expected("equivocation", View.EARLIER, earlier=seen.sign(world.keys.log))


def equivocate_to_witnesses(world: World, log: Path, generator: random.Random) -> Expected:
    """Each of two witnesses saw another history, so neither has a quorum."""
    mine = checkpoint_of(world.origin, _forked(world, generator)).sign(world.keys.log)
    one, other = generator.sample(WITNESSES, 2)
    (log / "checkpoint").write_bytes(_cosigned(world.note, one))
    (log / "cosigned").write_bytes(_cosigned(mine, other))
    return Expected("not-witnessed", View.WITNESSES)


def compare_witnesses(world: World, log: Path, generator: random.Random) -> Expected:
    """The same deed, seen by somebody who has what the other witness cosigned."""
    entries = _forked(world, generator)[: generator.randrange(200, len(world.entries) + 1)]
    mine = checkpoint_of(world.origin, entries).sign(world.keys.log)
    one, other = generator.sample(WITNESSES, 2)
    (log / "checkpoint").write_bytes(_cosigned(world.note, one))
    return Expected("equivocation", View.EARLIER, earlier=_cosigned(mine, other))


def fork_behind_witnesses(world: World, log: Path, generator: random.Random) -> Expected:
    """A quorum saw another history than the one that is shown."""
    (log / "cosigned").write_bytes(_cosigned(world.early_note, *generator.sample(WITNESSES, 2)))
    world.publish(log, _forked(world, generator), signed=True)
    return Expected("equivocation", View.WITNESSES)


def cut_behind_witnesses(world: World, log: Path, generator: random.Random) -> Expected:
    (log / "cosigned").write_bytes(_cosigned(world.note, *generator.sample(WITNESSES, 2)))
    world.publish(log, world.entries[: generator.randrange(1, len(world.entries))], signed=True)
    return Expected("rolled-back", View.WITNESSES)


def forge_cosignature(world: World, log: Path, generator: random.Random) -> Expected:
    """What a witness signed under an earlier checkpoint, or a forger in its name."""
    old = WITNESSES[0].cosign(parse_note(world.early_note)[0], TIME)
    note = add_cosignatures(world.note, (old,))
    if generator.random() < 0.5:
        forger = WitnessSigner(WITNESSES[0].name, generator.randbytes(32))
        wrong = forger.cosign(parse_note(world.note)[0], TIME)
        wrong = type(wrong)(wrong.name, WITNESSES[0].verifier.key_id, wrong.value)
        note = add_cosignatures(world.note, (wrong,))
    (log / "checkpoint").write_bytes(note)
    return Expected("bad-signature", View.WITNESSES)


def retired_key(world: World, log: Path, generator: random.Random) -> Expected:
    """The log was handed over, and the old key signs on."""
    new = NoteSigner(world.keys.log.name, generator.randbytes(32))
    at = generator.randrange(1, len(world.entries) + 1)
    entry = encode_entry(hand_over(world.keys.log, new.verifier, world.origin, at))
    world.publish(log, [*world.entries[:at], entry, *world.entries[at:]], signed=True)
    return Expected("retired-key")


def handover_elsewhere(world: World, log: Path, generator: random.Random) -> Expected:
    """A handover that the old key signed for another place of the log."""
    new = NoteSigner(world.keys.log.name, generator.randbytes(32))
    at, other = generator.sample(range(1, len(world.entries) + 1), 2)
    entry = encode_entry(hand_over(world.keys.log, new.verifier, world.origin, other))
    world.publish(log, [*world.entries[:at], entry, *world.entries[at:]], signed=True)
    return Expected("key-handover", index=at)


def another_log(world: World, log: Path, generator: random.Random) -> Expected:
    """Another log of the same key, to somebody who knows this one."""
    shutil.rmtree(log)
    shutil.copytree(world.folder / "other", log)
    earlier = generator.choice([world.note, world.early_note])
    return Expected("origin-mismatch", View.EARLIER, earlier=earlier)


def another_name(world: World, log: Path, generator: random.Random) -> Expected:
    """These entries, signed as those of another log."""
    origin = f"{world.keys.log.name}/{generator.randbytes(8).hex()}"
    publish(log, world.entries, world.keys.log, origin)
    return Expected("origin-mismatch")


def rewrite_payload(world: World, log: Path, generator: random.Random) -> Expected:
    """The record is sealed anew with another content; the commitment in the log stays."""
    at = generator.randrange(1, len(world.entries))
    part = _another(world.parts[at - 1], generator)

    def reseal(frames: list[Frame]) -> list[Prepared]:
        made = [prepared(frame) for frame in frames]
        made[at] = made[at]._replace(payload=_sealed(world, frames, at, part)[1])
        return made

    edit_journal(log, reseal)
    return Expected("commitment-mismatch", View.SEALS, index=at)


def lie_in_public(world: World, log: Path, generator: random.Random) -> Expected:
    """The public entry says something else than the sealed part that it commits to."""
    at = generator.choice(world.indices(OpenEntry) + world.indices(CloseEntry))
    entry = world.parsed[at]
    if isinstance(entry, OpenEntry):
        lies: list[RecordEntry] = [
            entry._replace(prompt_tokens=entry.prompt_tokens + generator.randint(1, 99)),
            entry._replace(time_received=entry.time_received + generator.randint(1, 99)),
        ]
    else:
        assert isinstance(entry, CloseEntry)
        lies = [
            entry._replace(output_tokens=entry.output_tokens + generator.randint(1, 99)),
            entry._replace(outcome="client-gone"),
            entry._replace(time_closed=entry.time_closed + generator.randint(1, 99)),
        ]
    _replace_entry(world, log, at, generator.choice(lies), None)
    return Expected("payload-mismatch", View.SEALS, index=at)


def rewrite_output(world: World, log: Path, generator: random.Random) -> Expected:
    """The close of a stream says other tokens than its chunks released; everything is signed."""
    streams = {entry.counter for entry in world.parsed if isinstance(entry, ChunkEntry)}
    at = generator.choice([at for at in world.indices(CloseEntry) if _part(world, at).counter in streams])
    part = _part(world, at)
    assert isinstance(part, ClosePart)
    output = list(part.output_ids)
    output[generator.randrange(len(output))] += 1
    _resealed(world, log, at, part.model_copy(update={"output_ids": tuple(output)}))
    return Expected("output-mismatch", View.SEALS)


def fewer_bytes(world: World, log: Path, generator: random.Random) -> Expected:
    """A complete stream that released fewer bytes than its chunks announced."""
    streams = {entry.counter for entry in world.parsed if isinstance(entry, ChunkEntry)}
    at = generator.choice([at for at in world.indices(CloseEntry) if _part(world, at).counter in streams])
    part = _part(world, at).model_copy(update={"bytes_to_client": generator.randrange(10)})
    _resealed(world, log, at, part)
    return Expected("bytes-mismatch", View.SEALS)


def post_hoc_seed(world: World, log: Path, generator: random.Random) -> Expected:
    """A seed that was chosen to fit an answer; sealed, committed to, signed."""
    at = generator.choice(world.indices(OpenEntry))
    part = _part(world, at).model_copy(update={"seed": generator.randrange(1 << 63)})
    _resealed(world, log, at, part)
    return Expected("seed", View.SEEDS)


def post_hoc_request(world: World, log: Path, generator: random.Random) -> Expected:
    """Another request's digest, and the seed that would be right for it."""
    at = generator.choice(world.indices(OpenEntry))
    digest, part = generator.randbytes(32), _part(world, at)
    seed = issue_seed(world.keys.seed, world.origin, part.counter, digest)
    lie = part.model_copy(update={"request_digest": f"sha256:{digest.hex()}", "seed": seed})
    _resealed(world, log, at, lie)
    return Expected("request-digest", View.SEEDS)


def post_hoc_seed_key(world: World, log: Path, generator: random.Random) -> Expected:
    """The operator hands over another seed key than the header commits to."""
    return Expected("seed-commitment", View.SEEDS, seed_key=generator.randbytes(32))


def _of(entry: object, counter: int) -> bool:
    return isinstance(entry, RecordEntry) and entry.counter == counter


def _forked(world: World, generator: random.Random) -> list[bytes]:
    """The log with another commitment among the entries that were signed early."""
    entries = list(world.entries)
    at = generator.randrange(1, 200)
    old = world.parsed[at]
    assert isinstance(old, RecordEntry)
    entries[at] = encode_entry(old._replace(commitment=f"sha256:{generator.randbytes(32).hex()}"))
    return entries


def _cosigned(note: bytes, *witnesses: WitnessSigner) -> bytes:
    text = parse_note(note)[0]
    return add_cosignatures(note, tuple(witness.cosign(text, TIME) for witness in witnesses))


def _part(world: World, at: int) -> RecordPart:
    return world.parts[at - 1]


def _another(part: RecordPart, generator: random.Random) -> RecordPart:
    """The part with another content that its public entry does not show."""
    if isinstance(part, OpenPart):
        return part.model_copy(update={"bytes_from_client": part.bytes_from_client + generator.randint(1, 9)})
    if isinstance(part, ChunkPart):
        return part.model_copy(update={"bytes": part.bytes + generator.randint(1, 9)})
    return part.model_copy(update={"detail": f"lie {generator.random()}"})


def _sealed(world: World, frames: list[Frame], at: int, part: RecordPart) -> tuple[str, bytes]:
    """The commitment to a part in the place of entry `at`, and the part sealed under its record's key."""
    mine = [index for index, entry in enumerate(world.parsed) if _of(entry, part.counter)]
    opener = SealKey(world.keys.seal)
    key = opener.key_of(world.origin, part.counter, frames[mine[0]].wrapped_key)
    assert key is not None
    sealed = RecordSeal(world.origin, part.counter, key).seal(mine.index(at), part)
    return sealed.commitment, sealed.payload


def _resealed(world: World, log: Path, at: int, part: RecordPart) -> None:
    """Another part in the place of entry `at`: committed to, sealed, published, signed."""
    found: list[tuple[str, bytes]] = []

    def look(frames: list[Frame]) -> list[Prepared]:
        found.append(_sealed(world, frames, at, part))
        return [prepared(frame) for frame in frames]

    edit_journal(log, look)
    commitment, payload = found[0]
    _replace_entry(world, log, at, entry_of(part, commitment), payload)


def _replace_entry(world: World, log: Path, at: int, entry: RecordEntry, payload: bytes | None) -> None:
    data = encode_entry(entry)
    assert parse_entry(data) == entry

    def put(frames: list[Frame]) -> list[Prepared]:
        made = [prepared(frame) for frame in frames]
        made[at] = made[at]._replace(entry=data, payload=payload or made[at].payload)
        return made

    edit_journal(log, put)
    world.publish(log, [*world.entries[:at], data, *world.entries[at + 1 :]], signed=True)


OPERATORS: dict[str, Kind] = {
    "reuse a counter": reuse_counter,
    "leave a record out": skip_counter,
    "replay a record": replay_record,
    "go on after a close": part_after_close,
    "close what was never opened": part_without_open,
    "leave a chunk out": lose_chunk,
    "declare something else later": second_header,
    "fork, and grow": fork,
    "fork at the same size": fork_same_size,
    "cut the end off, and sign": cut_and_sign,
    "erase a verdict": erase_verdict,
    "equivocate to two witnesses": equivocate_to_witnesses,
    "equivocate, and the witnesses compare": compare_witnesses,
    "fork behind a quorum": fork_behind_witnesses,
    "cut back behind a quorum": cut_behind_witnesses,
    "forge a cosignature": forge_cosignature,
    "sign with a retired key": retired_key,
    "use a handover elsewhere": handover_elsewhere,
    "show another log of the key": another_log,
    "sign for another log": another_name,
    "seal another content": rewrite_payload,
    "lie in a public entry": lie_in_public,
    "close with another output": rewrite_output,
    "release fewer bytes than announced": fewer_bytes,
    "choose a seed afterwards": post_hoc_seed,
    "choose a request's digest afterwards": post_hoc_request,
    "hand over another seed key": post_hoc_seed_key,
}
