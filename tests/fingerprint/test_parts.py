"""Commitments, messages, tolerances and the baseline, each against what it must refuse."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import IntegrityError, MalformedError, UndecidedError, UsageError
from ullage.fingerprint.commitment import (
    StateType,
    check_opening,
    commit,
    decode_state,
    encode_state,
    leaves_of,
    transcript_digest,
)
from ullage.fingerprint.messages import Answer, Challenge, Committed, Opening, parse
from ullage.fingerprint.tolerance import SESSION_TOKENS, fit_tolerance, load_tolerance, save_tolerance
from ullage.fingerprint.toploc import PRIME, _evaluate, _interpolate, compare, prove
from ullage.merkle import inclusion_proof

DIGEST = "0" * 64


def encoded(tokens: int, dtype: StateType = "float32") -> list[bytes]:
    states = np.random.default_rng(tokens).standard_normal((tokens, 8)).astype(np.float32)
    return [encode_state(state, dtype) for state in states]


def test_the_golden_transcript_and_root() -> None:
    golden = json.loads((Path(__file__).parent / "golden" / "commitment.json").read_text("utf-8"))
    digest = transcript_digest(int(golden["seed"]), golden["prompt_ids"], golden["output_ids"])
    assert digest.hex() == golden["transcript"]
    states = [encode_state(np.array(state, np.float32), golden["dtype"]) for state in golden["states"]]
    assert [state.hex() for state in states] == golden["encoded"]
    assert commit(digest, states, 2, golden["dtype"]).root.hex() == golden["root"]


@given(st.integers(1, 33), st.data())
def test_an_opening_is_of_its_token_and_no_other(tokens: int, data: st.DataObject) -> None:
    states = encoded(tokens)
    commitment = commit(bytes(32), states, 8, "float32")
    token = data.draw(st.integers(0, tokens - 1))
    path = inclusion_proof(leaves_of(states), token)
    assert encode_state(check_opening(commitment, token, states[token], path), "float32") == states[token]
    other = data.draw(st.integers(0, tokens))
    if other != token:
        with pytest.raises(IntegrityError):
            check_opening(commitment, other, states[token], path)
    changed = bytes([states[token][0] ^ 1]) + states[token][1:]
    with pytest.raises(IntegrityError):
        check_opening(commitment, token, changed, path)


@given(st.lists(st.floats(-1e3, 1e3, width=16), min_size=1, max_size=9))
def test_bfloat16_states_come_back(values: list[float]) -> None:
    upper = np.array(values, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    state = upper.view(np.float32)
    assert np.array_equal(decode_state(encode_state(state, "bfloat16"), len(state), "bfloat16"), state)


def test_states_of_the_wrong_size_or_not_finite_are_refused() -> None:
    with pytest.raises(MalformedError):
        decode_state(b"123", 1, "float32")
    with pytest.raises(MalformedError):
        decode_state(np.array([np.nan], "<f4").tobytes(), 1, "float32")


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (Answer, '{"fingerprint": "abc"}'),
        (Answer, '{"fingerprint": "AB"}'),
        (Challenge, f'{{"coordinates": 5, "seed": "{DIGEST}", "step": "0.1", "transcript": "{DIGEST}"}}'),
        (Challenge, f'{{"coordinates": 1, "seed": "{DIGEST}", "step": "nan", "transcript": "{DIGEST}"}}'),
        (Challenge, f'{{"coordinates": 1, "seed": "00", "step": "0.1", "transcript": "{DIGEST}"}}'),
        (Opening, f'{{"path": ["{DIGEST[1:]}"], "state": "00"}}'),
        (Committed, "[]"),
        (Committed, "{"),
    ],
)
def test_malformed_messages_are_refused_without_their_values(schema: type[Answer], body: str) -> None:
    with pytest.raises(MalformedError, match="fingerprint message"):
        parse(schema, body.encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for schema in (Answer, Challenge, Committed, Opening):
        with suppress(MalformedError):
            assert isinstance(parse(schema, data), schema)


def calibrated(scale: float = 1.0) -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    return [scale * generator.chisquare(4, SESSION_TOKENS // 2) for _ in range(24)]


def test_every_calibrated_session_lies_below_the_envelope(tmp_path: Path) -> None:
    sessions = calibrated()
    tolerance = fit_tolerance(sessions, width=8, dtype="float32", model="sha256:1", kappa=1.0)
    joined = [np.concatenate(sessions[at : at + 2]) for at in range(0, len(sessions), 2)]
    for share, limit in zip(np.arange(1, 17) / 16, tolerance.envelope, strict=True):
        assert max(np.quantile(one, share, method="higher") for one in joined) <= limit
    save_tolerance(tmp_path / "tolerance.json", tolerance)
    assert load_tolerance(tmp_path / "tolerance.json") == tolerance
    with pytest.raises(UsageError):
        save_tolerance(tmp_path / "tolerance.json", tolerance)


def test_too_few_tokens_calibrate_nothing() -> None:
    with pytest.raises(UndecidedError):
        fit_tolerance(calibrated()[:4], width=8, dtype="float32", model="sha256:1")


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"step": "0"}, {"envelope": ["1"]}, {"width": -1}, {"width": 1.5}, {"more": 1}],
)
def test_other_files_are_no_tolerance(tmp_path: Path, change: dict[str, object]) -> None:
    tolerance = fit_tolerance(calibrated(), width=8, dtype="float32", model="sha256:1")
    path = tmp_path / "tolerance.json"
    path.write_text(json.dumps(tolerance.to_dict() | change))
    with pytest.raises(MalformedError):
        load_tolerance(path)


@given(st.lists(st.integers(0, PRIME - 1), min_size=1, max_size=20, unique=True), st.integers(0, 2**32))
def test_the_polynomial_goes_through_its_points(places: list[int], seed: int) -> None:
    x = np.array(places, np.int64)
    y = np.random.default_rng(seed).integers(0, PRIME, len(x))
    assert np.array_equal(_evaluate(_interpolate(x, y), x), y)


def test_the_baseline_accepts_its_own_states_and_refuses_others() -> None:
    generator = np.random.default_rng(1)
    states = generator.standard_normal((32, 64)).astype(np.float32)
    proof = prove(states)
    assert proof.size == 258
    same = compare(proof, states)
    assert same.accepted
    assert same.score == 0
    near = compare(proof, states * np.float32(1.002))
    assert near.accepted
    assert 0 < near.score < 10
    other = compare(proof, generator.standard_normal((32, 64)).astype(np.float32))
    assert not other.accepted
    assert other.score > near.score
