"""What is written and not drawn: names, walks, lists, drawings. And that drawn runs stay drawn."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.monitor.decoders import AROUND, in_groups
from ullage.monitor.drawn import is_list, is_written, looks_drawn
from ullage.monitor.scanner import scan


@pytest.mark.parametrize(
    "text",
    [
        "LOAD_MSG_AVX2_9_5_2_10_0_7_4_15_14_11_6_3_1_12_8_13",
        "VPUNPCKHQDQ_X15_X2_X2",
        "5H1v2h3v-2zm9-9",
        "MmZzLlHhVvCcSsQqTtAa",
        '"-=qwertyuiop[]asdfghjkl;\'zxcvbnm,./_+QWERTYUIOP{}ASDFGHJKL:\\"ZXCVBNM<>?"',
        "slotFlags=[ECC,RSA,DSA,DH,RC2,RC4,DES,RANDOM,SHA1,MD5,MD2,SSL,TLS,AES,Camellia,",
        "\n".join(
            f"L2TP_ATTR_{one}," for one in ("UDP_CSUM", "RECVSEQ", "MTUxQ", "DPORT8x", "IFNAMExZ", "L2Sx")
        ),
    ],
)
def test_what_is_written_is_no_finding(text: str) -> None:
    assert scan(f"here is {text} and more\n").findings == ()


@pytest.mark.parametrize("key", ["XK7QP-3M9RT-8WZ2D-VB4HN-6YJ5C", "k3v9x7-q2m8zt-p4w6hd-r5n7bj-y9c3gf"])
def test_keys_in_groups_of_one_length_are_drawn(key: str) -> None:
    assert not is_written(key.encode())
    assert scan(f"Your key is {key} from now on.\n").findings


def test_a_key_in_uneven_groups_is_drawn_all_the_same() -> None:
    draw = random.Random(4)
    found = 0
    for _ in range(50):
        letters = base64.b32encode(draw.randbytes(20)).decode()
        cuts = sorted(draw.sample(range(1, 31), 6))
        groups = [letters[a:b] for a, b in zip([0, *cuts], [*cuts, 32], strict=True)]
        found += bool(scan(f"Your key is {'-'.join(groups)} from now on.\n").findings)
    assert found >= 42


@given(st.binary(min_size=24, max_size=300))
def test_both_cases_are_enough_to_be_no_name(payload: bytes) -> None:
    letters = base64.b64encode(payload).rstrip(b"=")
    if letters.lower() != letters and letters.upper() != letters and b"x" in letters:
        assert not is_written(letters)


@pytest.mark.parametrize("size", [12, 24, 64, 256])
def test_drawn_bytes_are_seen_as_drawn(size: int) -> None:
    draw = random.Random(size)
    lists = names = walks = 0
    for _ in range(2000):
        payload = draw.randbytes(size)
        lists += is_list(base64.b85encode(payload))
        names += is_written(base64.urlsafe_b64encode(payload).rstrip(b"="))
        walks += not looks_drawn(base64.b64encode(payload).rstrip(b"="), 60)
    assert max(lists, names, walks) <= 4


@pytest.mark.parametrize("encode", [base64.a85encode, base64.b85encode])
def test_short_payloads_in_whole_groups_of_base85_are_found(encode: Callable[[bytes], bytes]) -> None:
    draw = random.Random(5)
    found = sum(
        bool(scan(f"The value is\nvalue: {encode(draw.randbytes(16)).decode()}\nand no other.\n").findings)
        for _ in range(200)
    )
    assert found >= 186


@given(st.binary(min_size=1, max_size=64).map(lambda payload: payload + b"\0" * (-len(payload) % 4)))
def test_whole_words_are_whole_groups_whatever_stands_around(payload: bytes) -> None:
    letters = base64.b85encode(payload)
    assert in_groups(letters)
    assert in_groups(b"'" + letters + b"',") or letters.strip(AROUND) != letters


@pytest.mark.parametrize("run", [b"", b"four", b"~~~~~", b"v\\/w~", b"twoOpsAndType{ssa"])
def test_what_is_no_whole_group(run: bytes) -> None:
    assert not in_groups(run)
