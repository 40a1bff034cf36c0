"""Cosignatures against the specification's own example, and trust policies against its grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.log.published import LOG, ORIGIN, OTHER, TIME
from ullage.errors import IntegrityError, MalformedError, UsageError
from ullage.log.notes.checkpoint import Checkpoint, open_checkpoint
from ullage.log.notes.cosignature import (
    WitnessSigner,
    WitnessVerifier,
    add_cosignatures,
    cosignature_time,
    cosigned_message,
    open_cosigned,
)
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import NoteSigner, NoteVerifier, Signature, parse_note

W = [WitnessSigner(f"w{number}.example", bytes([number]) * 32) for number in range(1, 7)]
CHECKPOINT = Checkpoint(ORIGIN, 12, bytes(32))
NOTE = CHECKPOINT.sign(LOG)
TEXT = CHECKPOINT.text()


def cosigned(*witnesses: WitnessSigner, time: int = TIME) -> bytes:
    return add_cosignatures(NOTE, tuple(witness.cosign(TEXT, time) for witness in witnesses))


def test_the_signed_message_is_that_of_the_specification() -> None:
    text = b"example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert cosigned_message(text, 1679315147) == b"cosignature/v1\ntime 1679315147\n" + text


def test_a_cosignature_goes_both_ways() -> None:
    signature = W[0].cosign(TEXT, TIME)
    assert len(signature.value) == 72
    assert cosignature_time(signature.value) == TIME
    assert W[0].verifier.verify(signature.value, TEXT.encode())
    assert not W[1].verifier.verify(signature.value, TEXT.encode())
    assert not W[0].verifier.verify(signature.value, TEXT.encode() + b"x\n")
    for spot in range(len(signature.value)):
        changed = bytearray(signature.value)
        changed[spot] ^= 1
        assert not W[0].verifier.verify(bytes(changed), TEXT.encode())
    assert not W[0].verifier.verify(signature.value[:-1], TEXT.encode())


def test_extension_lines_are_cosigned_as_they_are() -> None:
    text = TEXT + "an extension\n"
    assert W[0].verifier.verify(W[0].cosign(text, TIME).value, text.encode())


@pytest.mark.parametrize("time", [0, -1, 1 << 63])
def test_no_cosignature_without_a_time(time: int) -> None:
    with pytest.raises(UsageError, match="clock"):
        W[0].cosign(TEXT, time)


def test_a_time_of_zero_is_not_accepted_either() -> None:
    message = cosigned_message(TEXT.encode(), 0)
    value = bytes(8) + NoteSigner("w1.example", W[0].seed).sign(message)
    assert not W[0].verifier.verify(value, TEXT.encode())


def test_a_witness_signs_nothing_but_checkpoints() -> None:
    with pytest.raises(MalformedError):
        W[0].cosign("pay Mallory\n", TIME)


def test_a_key_of_one_kind_is_not_read_as_one_of_another() -> None:
    key, private = str(W[0].verifier), W[0].private_text()
    assert WitnessVerifier.parse(key) == W[0].verifier
    assert WitnessSigner.parse(private) == W[0]
    for parse, text in (
        (NoteVerifier.parse, key), (WitnessVerifier.parse, str(LOG.verifier)),
        (NoteSigner.parse, private), (WitnessSigner.parse, LOG.private_text()),
    ):  # fmt: skip
        with pytest.raises(MalformedError, match="type"):
            parse(text)
    assert "seed" not in repr(W[0])


def test_the_same_key_as_log_and_as_witness_has_two_ids() -> None:
    both = WitnessSigner(ORIGIN, LOG.seed)
    assert both.verifier.key_id != LOG.named(ORIGIN).verifier.key_id
    note = add_cosignatures(NOTE, (both.cosign(TEXT, TIME),))
    assert open_checkpoint(note, LOG.verifier) == CHECKPOINT


def test_cosignatures_are_collected() -> None:
    keys = (LOG.named(ORIGIN).verifier,)
    witnesses = tuple(witness.verifier for witness in W)
    opened = open_cosigned(cosigned(W[0], W[2]), keys, witnesses)
    assert [one.witness for one in opened.cosignatures] == [W[0].verifier, W[2].verifier]
    assert open_cosigned(NOTE, keys, witnesses).cosignatures == ()
    with pytest.raises(IntegrityError):
        open_cosigned(cosigned(W[0]), (OTHER.named(ORIGIN).verifier,), witnesses)


def test_a_cosignature_that_is_wrong_spoils_the_note() -> None:
    """Whoever shows a log could else write a quorum's names under it."""
    sound = W[0].cosign(TEXT, TIME)
    for value in (
        sound.value[:8] + bytes(64),
        (TIME + 1).to_bytes(8, "big") + sound.value[8:],
        W[1].cosign(TEXT, TIME).value,
        W[0].cosign(Checkpoint(ORIGIN, 13, bytes(32)).text(), TIME).value,
        bytes(8),
    ):
        forged = Signature(sound.name, sound.key_id, value)
        note = add_cosignatures(NOTE, (forged, W[2].cosign(TEXT, TIME)))
        with pytest.raises(IntegrityError, match="w1"):
            open_cosigned(note, (LOG.verifier.named(ORIGIN),), (W[0].verifier, W[2].verifier))


def test_a_newer_cosignature_takes_the_place_of_the_older() -> None:
    later = add_cosignatures(cosigned(W[0], W[1]), (W[0].cosign(TEXT, TIME + 5),))
    assert len(parse_note(later)[1]) == 3
    opened = open_cosigned(later, (LOG.named(ORIGIN).verifier,), (W[0].verifier, W[1].verifier))
    assert [one.time for one in opened.cosignatures] == [TIME + 5, TIME]


def test_a_note_takes_no_more_signatures_than_it_may() -> None:
    many = tuple(Signature(f"x{number}", b"1234", b"12345") for number in range(64))
    with pytest.raises(MalformedError, match="64"):
        add_cosignatures(NOTE, many)


HEAD = f"log {LOG.verifier}\n" + "".join(
    f"witness {name} {witness.verifier}\n"
    for name, witness in zip(("X1", "X2", "X3", "Y1", "Y2", "Y3"), W, strict=True)
)
# The specification's own example.
EXAMPLE = HEAD + (
    "group X-witnesses 2 X1 X2 X3\ngroup Y-witnesses any Y1 Y2 Y3\n"
    "group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
)


@pytest.mark.parametrize(
    ("cosigners", "enough"),
    [
        ([0, 1, 3], True), ([0, 1, 2, 3, 4, 5], True),
        ([0, 1], False), ([0, 3], False), ([3, 4, 5], False), ([], False),
    ],
)  # fmt: skip
def test_the_specifications_example(cosigners: list[int], enough: bool) -> None:
    policy = Policy.parse(EXAMPLE.encode())
    opened = policy.open(cosigned(*(W[number] for number in cosigners)))
    assert policy.is_quorum(one.witness for one in opened.cosignatures) is enough
    assert opened.checkpoint == CHECKPOINT


def test_simple_quorums() -> None:
    alone = Policy.parse(f"{HEAD}quorum Y2\n".encode())
    assert alone.is_quorum([W[4].verifier])
    assert not alone.is_quorum([W[0].verifier])
    none = Policy.parse(f"{HEAD}quorum none\n".encode())
    assert none.is_quorum([])
    assert Policy.of_key(LOG.verifier).is_quorum([])


def test_comments_blanks_urls_and_other_octets() -> None:
    text = f" \t# f\u00fcr alle\n\nlog\t{LOG.verifier}  https://log.example/ \n".encode()
    text += b" witness \xff\xfe " + str(W[0].verifier).encode() + b" https://w.example\nquorum \xff\xfe\n"
    policy = Policy.parse(text)
    assert (policy.logs[0].url, policy.witnesses[0].url) == ("https://log.example/", "https://w.example")
    assert policy.quorum == b"\xff\xfe"


@pytest.mark.parametrize(
    "text",
    [
        "", "quorum none", HEAD, "quorum none\nquorum none\n", "quorum X1\n" + HEAD, HEAD + "quorum X9\n",
        "log\nquorum none\n", "log x\nquorum none\n", f"log {LOG.verifier} u v\nquorum none\n",
        f"log {W[0].verifier}\nquorum none\n", f"witness a {LOG.verifier}\nquorum none\n",
        HEAD + f"log {LOG.verifier}\nquorum none\n", HEAD + f"log {LOG.named('b').verifier}\nquorum none\n",
        HEAD + f"witness X9 {W[0].verifier}\nquorum none\n", HEAD + "witness none x\nquorum none\n",
        f"witness none {W[0].verifier}\nquorum none\n", f"{HEAD}group X1 any X2\nquorum none\n",
        f"{HEAD}group g any\nquorum g\n", f"{HEAD}group g 0 X1\nquorum g\n",
        f"{HEAD}group g 2 X1\nquorum g\n", f"{HEAD}group g +1 X1\nquorum g\n",
        f"{HEAD}group g any none\nquorum g\n",
        f"{HEAD}group g any g\nquorum g\n", f"{HEAD}group g any X1 X1\nquorum g\n",
        f"{HEAD}group g any X1\ngroup h any X1\nquorum g\n", f"{HEAD}group none any X1\nquorum none\n",
        f"{HEAD}quorum none \x0b\n", f"{HEAD}quorum none\r\n", "hello\nquorum none\n", "quorum\n",
    ],
)  # fmt: skip
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(MalformedError):
        Policy.parse(text.encode())


def test_a_policy_names_the_line_that_is_wrong() -> None:
    with pytest.raises(MalformedError, match="Line 2 of the policy"):
        Policy.parse(b"# fine\nhello\nquorum none\n")
    with pytest.raises(MalformedError, match="at most"):
        Policy.parse(b"#" * (1 << 20))


@given(st.binary(max_size=100))
def test_any_bytes_are_a_policy_or_malformed(data: bytes) -> None:
    try:
        policy = Policy.parse(data)
    except MalformedError:
        return
    assert policy.quorum is None  # nobody guesses a key


def test_a_policy_knows_which_logs_a_key_signs_for() -> None:
    policy = Policy.of_key(LOG.verifier)
    for origin in (f"{LOG.name}x", "elsewhere", f"{LOG.name}"[:-1]):
        note = Checkpoint(origin, 1, bytes(32)).sign(NoteSigner(origin, LOG.seed))
        with pytest.raises(IntegrityError, match="does not sign"):
            policy.open(note)
    assert policy.open(NOTE).checkpoint == CHECKPOINT
