"""Signed notes and checkpoints against golden notes that other software signed, and negative ones beside."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import IntegrityError, MalformedError, UllageError, UsageError
from ullage.log.notes.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from ullage.log.notes.signed_note import (
    MAX_NOTE_BYTES,
    NoteSigner,
    NoteVerifier,
    open_note,
    parse_note,
    sign_note,
)

# The example in the documentation of Go's golang.org/x/mod/sumdb/note, where the format comes from.
GO_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
GO_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
GO_LINE = f"— PeterNeumann {GO_SIGNATURE}\n"
GO_NOTE = f"{GO_TEXT}\n{GO_LINE}".encode()
OTHER = NoteSigner("other.example/log", bytes(range(32)))


def test_the_golden_note_is_written_byte_for_byte() -> None:
    signer = NoteSigner.parse(GO_PRIVATE)
    assert str(signer.verifier) == GO_PUBLIC
    assert signer.private_text() == GO_PRIVATE
    assert sign_note(GO_TEXT, [signer]) == GO_NOTE


def test_the_golden_note_opens() -> None:
    verifier = NoteVerifier.parse(GO_PUBLIC)
    assert open_note(GO_NOTE, [verifier]) == (GO_TEXT, (verifier,))


def test_unknown_signatures_are_ignored_and_order_does_not_matter() -> None:
    verifier = NoteVerifier.parse(GO_PUBLIC)
    unknown = sign_note(GO_TEXT, [OTHER]).decode().removeprefix(f"{GO_TEXT}\n")
    for lines in (GO_LINE + unknown, unknown + GO_LINE):
        assert open_note(f"{GO_TEXT}\n{lines}".encode(), [verifier])[1] == (verifier,)


def test_a_key_that_shares_only_the_name_is_unknown() -> None:
    namesake = NoteSigner("PeterNeumann", bytes(32))
    line = sign_note("another text\n", [namesake]).decode().split("\n\n")[1]
    assert open_note(GO_NOTE + line.encode(), [NoteVerifier.parse(GO_PUBLIC)])[0] == GO_TEXT


def test_an_empty_line_within_the_text_belongs_to_it() -> None:
    note = sign_note("one\n\ntwo\n", [OTHER])
    assert open_note(note, [OTHER.verifier])[0] == "one\n\ntwo\n"


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "altered text": lambda note: note.replace(b"answer", b"Answer"),
    "no last newline": lambda note: note[:-1],
    "no empty line": lambda note: note.replace(b"\n\n", b"\n"),
    "no signature": lambda note: note[: note.rfind(b"\n\n") + 2],
    "a hyphen for the dash": lambda note: note.replace("—".encode(), b"-"),
    "carriage returns": lambda note: note.replace(b"\n", b"\r\n"),
    "two spaces": lambda note: note.replace(b"PeterNeumann ", b"PeterNeumann  "),
    "base64 without padding": lambda note: note.replace(b"=\n", b"\n"),
    "base64 with loose bits": lambda note: note.replace(b"nAM=", b"nAN="),
    "short signature": lambda note: note[: -len(GO_LINE.encode())] + "— PeterNeumann x08gow==\n".encode(),
    "not UTF-8": lambda note: note.replace(b"If", b"\xff\xfe"),
    "too long": lambda note: b"x" * MAX_NOTE_BYTES + note,
    "too many signatures": lambda note: note + GO_LINE.encode() * 64,
    "a wrong signature of the known key besides": lambda note: note.replace(
        GO_LINE.encode(), _with_wrong_signature() + GO_LINE.encode()
    ),
    "nothing": lambda _: b"",
}


def _with_wrong_signature() -> bytes:
    value = bytearray(base64.b64decode(GO_LINE.split(" ")[2]))
    value[20] ^= 1
    return f"— PeterNeumann {base64.b64encode(bytes(value)).decode()}\n".encode()


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_note_is_refused(kind: str) -> None:
    note = BROKEN[kind](GO_NOTE)
    assert note != GO_NOTE
    with pytest.raises(IntegrityError):
        open_note(note, [NoteVerifier.parse(GO_PUBLIC)])


def test_a_note_is_no_longer_than_it_may_be() -> None:
    signer = NoteSigner("example.com/log", bytes(32))
    room = MAX_NOTE_BYTES - len(sign_note("\n", [signer]))
    assert parse_note(sign_note("x" * room + "\n", [signer]))
    with pytest.raises(MalformedError, match=str(MAX_NOTE_BYTES)):
        parse_note(sign_note("x" * (room + 1) + "\n", [signer]))


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(IntegrityError, match="not signed by the key"):
        open_note(GO_NOTE, [OTHER.verifier])


def test_every_flipped_bit_of_a_checkpoint_is_found() -> None:
    note = Checkpoint("other.example/log/1", 12, bytes(32)).sign(OTHER)
    for spot in range(len(note)):
        for bit in range(8):
            changed = bytearray(note)
            changed[spot] ^= 1 << bit
            with pytest.raises(IntegrityError):
                open_checkpoint(bytes(changed), OTHER.verifier)


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: f"{text}\n\n{GO_LINE}".encode()))
def test_any_bytes_are_a_note_or_malformed(data: bytes) -> None:
    try:
        text, signatures = parse_note(data)
    except MalformedError:
        return
    assert text.endswith("\n")
    assert signatures


@pytest.mark.parametrize(
    "key",
    [
        "",
        "PeterNeumann",
        GO_PUBLIC.replace("c74f20a3", "c74f20a4"),
        GO_PUBLIC.replace("c74f20a3", "C74F20A3"),
        GO_PUBLIC.replace("Peter", "Peter "),
        GO_PUBLIC.replace("+AR", "+AB"),
        GO_PUBLIC[:-4],
        GO_PUBLIC + "=",
    ],
)
def test_a_broken_verifier_key_is_refused(key: str) -> None:
    with pytest.raises(MalformedError):
        NoteVerifier.parse(key)


def test_a_broken_private_key_is_refused_without_being_shown() -> None:
    for key in (GO_PRIVATE.replace("c74f", "c74e"), GO_PRIVATE[:-2], GO_PUBLIC, "PRIVATE+KEY+x"):
        with pytest.raises(MalformedError) as caught:
            NoteSigner.parse(key)
        assert "AYEKFALVFGyN" not in str(caught.value)
    assert "AYEK" not in repr(NoteSigner.parse(GO_PRIVATE))
    assert "seed" not in repr(NoteSigner.parse(GO_PRIVATE))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\nb", "x" * 300])
def test_names_that_would_break_a_note_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        NoteVerifier(name, bytes(32))


def test_a_checkpoint_has_the_bytes_of_the_specification() -> None:
    # The example of https://c2sp.org/tlog-checkpoint.
    root = base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = Checkpoint("example.com/behind-the-sofa", 20852163, root)
    assert checkpoint.text() == text
    assert parse_checkpoint(text) == checkpoint


@pytest.mark.parametrize("size", ["012", "-1", "+1", "1.0", "", " 1", "1" * 20, "٣", str(1 << 63)])
def test_a_size_has_one_spelling(size: str) -> None:
    with pytest.raises(MalformedError):
        parse_checkpoint(f"origin\n{size}\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n")


@pytest.mark.parametrize(
    "text",
    ["", "a\n1\n", "a\n1\nAAAA\n", "\n1\n" + "A" * 43 + "=\n", "a\n1\n" + "A" * 43 + "=\nextension\n"],
)
def test_a_checkpoint_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UllageError):
        parse_checkpoint(text)
