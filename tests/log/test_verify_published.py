"""A stranger's check of a published log: every way to bend one, and the reason that is given for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.log.published import (
    LOG,
    ORIGIN,
    OTHER,
    TIME,
    digest,
    header,
    log_entries,
    publish,
    put,
    record_entries,
)
from ullage.errors import ExitCode
from ullage.log.entries import CloseEntry, Entry, OpenEntry, encode_entry, hand_over
from ullage.log.findings import LogFindings
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.notes.cosignature import WitnessSigner, add_cosignatures
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import NoteSigner, parse_note
from ullage.log.source import DirectorySource
from ullage.log.state import Rule
from ullage.log.tree.tiles import MAX_TILE_BYTES, Tile
from ullage.log.verify import verify_log

WITNESSES = [WitnessSigner(f"w{number}.example", bytes([number]) * 32) for number in range(3)]
POLICY = Policy.parse(
    "".join(
        [f"log {LOG.verifier}\n"]
        + [f"witness {number} {witness.verifier}\n" for number, witness in enumerate(WITNESSES)]
        + ["group two 2 0 1 2\nquorum two\n"]
    ).encode()
)
KEY = Policy.of_key(LOG.verifier)


def check(directory: Path, policy: Policy = KEY) -> LogFindings:
    return verify_log(DirectorySource(directory), policy)


def codes(findings: LogFindings) -> list[str]:
    return [finding.code for finding in findings.findings]


def cosign(directory: Path, *witnesses: WitnessSigner, name: str = "checkpoint") -> None:
    note = (directory / "checkpoint").read_bytes()
    text = parse_note(note)[0]
    put(directory, name, add_cosignatures(note, tuple(witness.cosign(text, TIME) for witness in witnesses)))


def flip(directory: Path, path: str, at: int) -> None:
    data = bytearray((directory / path).read_bytes())
    data[at] ^= 1
    put(directory, path, bytes(data))


@pytest.mark.parametrize("records", [0, 1, 102, 103, 700, 26_300])
def test_a_sound_log_passes(tmp_path: Path, records: int) -> None:
    entries = log_entries(records)
    publish(tmp_path, entries)
    findings = check(tmp_path)
    assert (findings.verdict, findings.findings) == ("pass", ())
    assert findings.covered == findings.entries == len(entries)
    assert (findings.opened, findings.closed, findings.aborted) == (records, records, 0)
    assert findings.first_time == TIME * 10**9
    assert findings.last_time == (TIME + records) * 10**9
    assert findings.header == header()


def test_the_full_tile_serves_where_the_partial_one_is_gone(tmp_path: Path) -> None:
    entries = log_entries(300)
    old = publish(tmp_path, entries[:300])
    publish(tmp_path, entries)
    put(tmp_path, "checkpoint", old.sign(LOG))
    for path in ("tile/0/001.p/44", "tile/entries/001.p/44"):
        (tmp_path / path).unlink()
    assert codes(check(tmp_path)) == ["still-open"]


TAMPERING: dict[str, tuple[Callable[[Path], None], list[str], int | None]] = {
    "an entry altered": (lambda at: flip(at, "tile/entries/001", 100), ["root-mismatch"], 256),
    "a tile altered": (lambda at: flip(at, "tile/0/001", 33), ["tile-mismatch"], 257),
    "an upper tile altered": (lambda at: flip(at, "tile/1/000.p/6", 33), ["tile-mismatch"], 0),
    "an upper tile of another length": (
        lambda at: put(at, "tile/1/000.p/6", bytes(32)), ["tile-mismatch"], 0,
    ),
    "a tile of another length": (lambda at: put(at, "tile/0/001", bytes(32)), ["tile-mismatch"], 256),
    "a tile lost": (lambda at: (at / "tile/0/002").unlink(), ["tile-missing"], 512),
    "an upper tile lost": (lambda at: (at / "tile/1/000.p/6").unlink(), ["tile-missing"], 0),
    "a bundle withheld": (lambda at: (at / "tile/entries/002").unlink(), ["entries-missing"], 512),
    "a bundle and its tile withheld": (
        lambda at: unlink(at, "tile/entries/002", "tile/0/002"),
        ["entries-missing", "entries-missing", "tile-missing"], None,
    ),
    "a bundle cut": (
        lambda at: put(at, "tile/entries/002", (at / "tile/entries/002").read_bytes()[:-1]),
        ["bundle-malformed"], 512,
    ),
    "a length altered": (lambda at: flip(at, "tile/entries/002", 1), ["bundle-malformed"], 512),
    "two bundles swapped": (
        lambda at: swap(at, "tile/entries/002", "tile/entries/003"),
        ["root-mismatch"], 512,
    ),
    "no checkpoint": (lambda at: (at / "checkpoint").unlink(), ["no-checkpoint"], None),
    "a checkpoint without end": (
        lambda at: put(at, "checkpoint", b"x" * (1 << 18)), ["bad-signature"], None,
    ),
    "a checkpoint altered": (lambda at: flip(at, "checkpoint", len(ORIGIN) + 2), ["bad-signature"], None),
    "signed by another key": (
        lambda at: resign(at, OTHER), ["bad-signature"], None,
    ),
    "signed by a key of another name": (
        lambda at: resign(at, NoteSigner("evil.example", bytes(32)), "evil.example/log"),
        ["bad-signature"], None,
    ),
    "signed for another log of the same key": (
        lambda at: resign(at, LOG, "tap.example/one/other"), ["origin-mismatch"], None,
    ),
    "signed when empty": (
        lambda at: put(at, "checkpoint", empty().sign(LOG)), ["empty"], None,
    ),
    "a device for a file": (
        lambda at: link(at, "checkpoint", "/dev/zero"),
        ["bad-signature"], None,
    ),
}  # fmt: skip


def unlink(directory: Path, *paths: str) -> None:
    for path in paths:
        (directory / path).unlink()


def link(directory: Path, path: str, target: str) -> None:
    unlink(directory, path)
    (directory / path).symlink_to(target)


def swap(directory: Path, one: str, other: str) -> None:
    (directory / one).rename(directory / "x")
    (directory / other).rename(directory / one)
    (directory / "x").rename(directory / other)


def empty() -> Checkpoint:
    return Checkpoint(ORIGIN, 0, bytes(32))


def resign(directory: Path, signer: NoteSigner, origin: str = ORIGIN) -> None:
    text = parse_note((directory / "checkpoint").read_bytes())[0].split("\n")
    root = publish(directory / "again", log_entries(614)).root
    put(directory, "checkpoint", Checkpoint(origin, int(text[1]), root).sign(signer))


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_found_with_its_reason(tmp_path: Path, kind: str) -> None:
    publish(tmp_path, log_entries(614))
    assert check(tmp_path).verdict == "pass"
    tamper, expected, index = TAMPERING[kind]
    tamper(tmp_path)
    findings = check(tmp_path)
    found = [code for code in codes(findings) if code not in ("entry-malformed", "counter-gap")]
    of_entries = ("part-", "counter-", "chunk-", "header-", "more")
    relevant = [code for code in found if not code.startswith(of_entries)]
    assert relevant == expected
    assert findings.exit_code is ExitCode.FAIL
    assert (findings.integrity, findings.witnessed) == (0, 0)
    assert next(one.index for one in findings.findings if one.code == expected[0]) == index


def test_a_rewritten_history_is_not_what_was_signed(tmp_path: Path) -> None:
    signed = publish(tmp_path, log_entries(614))
    entries = log_entries(614)
    entries[700] = entries[700].replace(b'"output_tokens":7', b'"output_tokens":8')
    assert entries != log_entries(614)
    publish(tmp_path, entries)
    put(tmp_path, "checkpoint", signed.sign(LOG))
    assert codes(check(tmp_path)) == ["root-mismatch"]
    assert check(tmp_path).findings[0].index is None
    assert check(tmp_path).checkpoint == signed


RULES: dict[str, tuple[list[Entry], str]] = {
    "no header": (list(record_entries(2)), "header-missing"),
    "two headers": ([header(), header()], "header-repeated"),
    "a gap": ([header(), *record_entries(1, first=1)], "counter-gap"),
    "a counter twice": ([header(), *record_entries(1), *record_entries(1)], "counter-repeated"),
    "a close of nothing": ([header(), CloseEntry(digest("x"), 0, "complete", 1, TIME)], "part-without-open"),
}  # fmt: skip


@pytest.mark.parametrize("kind", RULES)
def test_a_signature_does_not_excuse_a_broken_rule(tmp_path: Path, kind: str) -> None:
    entries, code = RULES[kind]
    publish(tmp_path, [encode_entry(entry) for entry in entries])
    findings = check(tmp_path)
    assert code in codes(findings)
    assert findings.verdict == "fail"


def test_an_entry_that_is_none(tmp_path: Path) -> None:
    publish(tmp_path, [*log_entries(1), b"not an entry", b""])
    findings = check(tmp_path)
    assert codes(findings) == ["entry-malformed"] * 2
    assert [finding.index for finding in findings.findings] == [3, 4]


def test_many_findings_are_summed_up(tmp_path: Path) -> None:
    publish(tmp_path, [*log_entries(1), *[b"x"] * 100])
    findings = check(tmp_path)
    assert len(findings.findings) == 51
    assert findings.findings[-1].code == "more"


def test_records_in_flight_are_noted(tmp_path: Path) -> None:
    entries = [*log_entries(2), encode_entry(OpenEntry(digest("o"), 2, 1, False, TIME))]
    publish(tmp_path, entries)
    findings = check(tmp_path)
    assert (codes(findings), findings.verdict) == (["still-open"], "pass")


def rotated(directory: Path, signer: NoteSigner) -> None:
    entries = log_entries(2)
    entries.append(encode_entry(hand_over(LOG, OTHER.verifier, ORIGIN, len(entries))))
    entries += [encode_entry(entry) for entry in record_entries(2, first=2)]
    publish(directory, entries, signer)


@pytest.mark.parametrize("key", [LOG, OTHER])
def test_either_key_verifies_a_log_that_was_handed_over(tmp_path: Path, key: NoteSigner) -> None:
    rotated(tmp_path, OTHER)
    findings = check(tmp_path, Policy.of_key(key.verifier))
    assert (codes(findings), findings.verdict) == (["key-changed"], "pass")
    assert str(OTHER.verifier) in findings.findings[0].sentence


def test_a_retired_key_signs_no_more(tmp_path: Path) -> None:
    rotated(tmp_path, LOG)
    assert codes(check(tmp_path)) == ["retired-key"]


def test_a_third_key_knows_nothing_of_a_handed_over_log(tmp_path: Path) -> None:
    rotated(tmp_path, OTHER)
    third = NoteSigner(LOG.name, bytes(32))
    assert codes(check(tmp_path, Policy.of_key(third.verifier))) == ["bad-signature"]


def test_a_handover_that_the_old_key_did_not_sign(tmp_path: Path) -> None:
    entries = log_entries(1)
    forged = hand_over(OTHER, OTHER.verifier, ORIGIN, len(entries))._replace(old_key=str(LOG.verifier))
    publish(tmp_path, [*entries, encode_entry(forged)], OTHER)
    assert codes(check(tmp_path)) == ["bad-signature", "key-handover"]


def test_a_quorum_of_witnesses(tmp_path: Path) -> None:
    entries = log_entries(614)
    publish(tmp_path, entries)
    assert codes(check(tmp_path, POLICY)) == ["not-witnessed"]
    cosign(tmp_path, WITNESSES[0])
    assert check(tmp_path, POLICY).verdict == "fail"
    cosign(tmp_path, WITNESSES[2])
    findings = check(tmp_path, POLICY)
    assert (findings.verdict, findings.findings, findings.witnessed) == ("pass", (), len(entries))
    assert [one.witness for one in findings.cosignatures] == [WITNESSES[0].verifier, WITNESSES[2].verifier]
    assert findings.cosignatures[0].time == TIME


def test_a_wrong_cosignature_of_a_known_witness_spoils_the_checkpoint(tmp_path: Path) -> None:
    publish(tmp_path, log_entries(3))
    note = (tmp_path / "checkpoint").read_bytes()
    wrong = WITNESSES[0].cosign("tap.example/other\n1\n" + "A" * 43 + "=\n", TIME)
    put(tmp_path, "checkpoint", add_cosignatures(note, (wrong,)))
    assert codes(check(tmp_path, POLICY)) == ["bad-signature"]
    assert check(tmp_path).verdict == "pass"


def test_what_grew_since_the_last_cosigned_checkpoint_has_no_witness(tmp_path: Path) -> None:
    entries = log_entries(614)
    publish(tmp_path, entries[:1001])
    cosign(tmp_path, *WITNESSES, name="cosigned")
    publish(tmp_path, entries)
    findings = check(tmp_path, POLICY)
    assert (codes(findings), findings.verdict) == (["not-witnessed"], "cannot-tell")
    assert (findings.witnessed, findings.covered) == (1001, len(entries))


def test_a_log_that_was_cut_back_behind_its_witnesses(tmp_path: Path) -> None:
    entries = log_entries(614)
    publish(tmp_path, entries)
    cosign(tmp_path, *WITNESSES, name="cosigned")
    publish(tmp_path, entries[:1001])
    findings = check(tmp_path, POLICY)
    assert "rolled-back" in codes(findings)
    assert (findings.verdict, findings.witnessed) == ("fail", 0)


def test_another_history_than_the_witnesses_saw(tmp_path: Path) -> None:
    entries = log_entries(614)
    publish(tmp_path, entries[:1001])
    cosign(tmp_path, *WITNESSES, name="cosigned")
    entries[7] = entries[7].replace(b'"output_tokens":7', b'"output_tokens":8')
    publish(tmp_path, entries)
    findings = check(tmp_path, POLICY)
    assert (codes(findings), findings.verdict) == (["equivocation"], "fail")
    assert check(tmp_path).verdict == "pass"  # the key alone cannot know


def test_a_source_is_never_asked_for_more_than_its_files_may_have(tmp_path: Path) -> None:
    publish(tmp_path, log_entries(3))
    put(tmp_path, Tile(0, 0, 8).path, bytes(MAX_TILE_BYTES + 1))
    put(tmp_path, "tile/entries/000.p/8", bytes(1 << 25))
    findings = check(tmp_path)
    assert findings.verdict == "fail"


def test_every_code_is_documented() -> None:
    root = Path(__file__).parents[2]
    table = (root / "docs/formats/findings.md").read_text()
    names = ("verify", "scan", "tree/growth", "findings")
    sources = [root / "src/ullage/log" / f"{name}.py" for name in names]
    pattern = r'(?:conclude|add|_finding|Finding)\(\s*(?:bundle, |tile, )?"([a-z-]+)"'
    emitted = {code for source in sources for code in re.findall(pattern, source.read_text())}
    assert len(emitted) > 15
    for code in emitted | {rule.value for rule in Rule}:
        assert f"`{code}`" in table, code
