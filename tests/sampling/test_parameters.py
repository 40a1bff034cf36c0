"""Parameters, addresses and issued seeds: what is accepted, and that records give back what went in."""

from __future__ import annotations

import hashlib
import hmac
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import MalformedError, UsageError
from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.seeds import issue_seed

KEY = bytes(range(32))
DIGEST = hashlib.sha256(b"request").digest()


@given(st.just(0.0) | st.floats(1e-5, 1e3), st.floats(0, 1), st.integers(0, 2**31 - 1))
def test_records_give_back_the_same_parameters(temperature: float, top_p: float, top_k: int) -> None:
    parameters = SamplingParameters(temperature, top_p, top_k)
    record = parameters.to_record()
    assert SamplingParameters.from_record(record) == parameters
    assert all(isinstance(record[name], str) for name in ("temperature", "top_p"))


def test_integers_become_decimal_strings() -> None:
    assert SamplingParameters(1, 1, 50).to_record() == {"temperature": "1.0", "top_p": "1.0", "top_k": 50}
    assert SamplingParameters(-0.0).to_record()["temperature"] == "0.0"


@pytest.mark.parametrize(
    "values",
    [
        (-1,),
        (1e-6,),
        (1e4,),
        (math.nan,),
        (math.inf,),
        (True,),
        ("1",),
        (1, -0.1),
        (1, 1.1),
        (1, 1, -1),
        (1, 1, 2**31),
        (1, 1, 1.5),
        (1, 1, True),
    ],
)
def test_parameters_out_of_range(values: tuple[object, ...]) -> None:
    with pytest.raises(UsageError):
        SamplingParameters(*values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": "0.70"},
        {"temperature": 0.7},
        {"temperature": "+1.0"},
        {"temperature": "nan"},
        {"temperature": "-1.0"},
        {"temperature": "1_0.0"},
        {"temperature": "٣.0"},
        {"top_p": "1"},
        {"top_p": "1.5"},
        {"top_k": "5"},
        {"top_k": True},
        {"top_k": -1},
        {"top_p": None},
    ],
)
def test_malformed_records(change: dict[str, object]) -> None:
    good: dict[str, object] = {"temperature": "0.7", "top_p": "1.0", "top_k": 50, "max_tokens": 7}
    assert SamplingParameters.from_record(good).top_k == 50
    with pytest.raises(MalformedError):
        SamplingParameters.from_record({**good, **change})
    with pytest.raises(MalformedError):
        SamplingParameters.from_record({name: good[name] for name in good if name not in change})


def test_addresses_count_from_the_last_prompt_token() -> None:
    address = NoiseAddress.of_response(2**63 - 1, prompt_length=5, length=3, first_step=2)
    assert address.seeds.dtype == np.uint64
    assert address.seeds.tolist() == [2**63 - 1] * 3
    assert address.positions.tolist() == [6, 7, 8]
    assert address.steps.tolist() == [2, 3, 4]
    both = NoiseAddress.concatenate([address, NoiseAddress.of_response(1, 1, 1)])
    assert both.positions.tolist() == [6, 7, 8, 0]
    assert len(NoiseAddress.concatenate([])) == 0


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_seeds_have_63_bits(seed: int) -> None:
    with pytest.raises(UsageError, match="2\\^63"):
        NoiseAddress.of_response(seed, 1, 1)


def test_malformed_addresses() -> None:
    one, two = np.ones(1, np.int64), np.ones(2, np.int64)
    with pytest.raises(UsageError):
        NoiseAddress(np.array([2**63], np.uint64), one, one)
    with pytest.raises(UsageError):
        NoiseAddress(one, two, one)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        NoiseAddress(one, -one, one)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        NoiseAddress(one * 0.5, one, one)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        NoiseAddress.of_response(1, 0, 1)


def test_issued_seed_is_the_documented_function() -> None:
    message = b"".join(
        [
            b"ullage.dev/issued-seed/v1",
            b"\0",
            bytes([0, 0, 0, 6]),
            "log/é".encode(),
            bytes([0] * 6 + [1, 2]),
            DIGEST,
        ]
    )
    tag = hmac.digest(KEY, message, "sha256")
    assert issue_seed(KEY, "log/é", 258, DIGEST) == int.from_bytes(tag[:8], "big") // 2


def test_issued_seed_is_frozen() -> None:
    assert issue_seed(KEY, "example.org/log", 7, DIGEST) == FROZEN


@given(st.integers(0, 2**64 - 1), st.text(min_size=1, max_size=30))
def test_issued_seeds_fit_and_depend_on_everything(counter: int, log_id: str) -> None:
    seed = issue_seed(KEY, log_id, counter, DIGEST)
    assert 0 <= seed < 2**63
    others = {
        issue_seed(KEY[::-1], log_id, counter, DIGEST),
        issue_seed(KEY, log_id + "\0", counter, DIGEST),
        issue_seed(KEY, log_id, counter ^ 1, DIGEST),
        issue_seed(KEY, log_id, counter, DIGEST[::-1]),
    }
    assert len(others | {seed}) == 5


@pytest.mark.parametrize(
    ("key", "log_id", "counter", "digest"),
    [
        (KEY[1:], "log", 0, DIGEST),
        (KEY, "", 0, DIGEST),
        (KEY, "x" * 1025, 0, DIGEST),
        (KEY, "log", -1, DIGEST),
        (KEY, "log", 2**64, DIGEST),
        (KEY, "log", 0, b"short"),
    ],
)
def test_inputs_that_cannot_be_encoded(key: bytes, log_id: str, counter: int, digest: bytes) -> None:
    with pytest.raises(UsageError):
        issue_seed(key, log_id, counter, digest)


FROZEN = 7480148055889362801
