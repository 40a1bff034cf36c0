"""Verifier and prover as two processes; provers that lie about what they committed to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.tiny_model import make_tiny_model
from ullage.audit.verdict import Outcome
from ullage.errors import UsageError
from ullage.fingerprint.check import Checked, Fault, Terms, Transcript, check
from ullage.fingerprint.client import FingerprintClient
from ullage.fingerprint.commitment import Commitment, commit, encode_state
from ullage.fingerprint.fingerprint_claims import fingerprint_claims
from ullage.fingerprint.messages import Committed
from ullage.fingerprint.projection import fingerprint
from ullage.fingerprint.tolerance import Tolerance, fit_tolerance, load_tolerance
from ullage.model.reference import Reference
from ullage.model.states import reference_states
from ullage.server.fingerprint_app import attach
from ullage.server.fingerprints import StateStore

ANSWERS, TOKENS = 12, 30


@contextmanager
def serving(*command: str) -> Iterator[tuple[str, str]]:
    """A server of ours with fingerprints: the URLs of its API and of its verifiers."""
    arguments = [*command, "--listen", "127.0.0.1:0", "--fingerprints", "127.0.0.1:0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ullage", *arguments], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        found: dict[str, str] = {}
        for line in process.stdout:
            if match := re.match(r"(fingerprints at|listening on) (http://\S+)", line):
                found[match[1]] = match[2]
            if len(found) == 2:
                break
        yield found["listening on"], found["fingerprints at"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


def asked(url: str) -> list[Transcript]:
    """What a tap would have recorded of these answers."""

    def one(number: int) -> Transcript:
        prompt = [10 + number, 40, 50 + number]
        body = {
            "prompt": prompt, "seed": 1000 + number, "max_tokens": TOKENS, "return_token_ids": True,
        }  # fmt: skip
        choice = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()["choices"][0]
        return Transcript(number, 1000 + number, tuple(prompt), tuple(choice["token_ids"]))

    with ThreadPoolExecutor(6) as pool:
        return list(pool.map(one, range(ANSWERS)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference.load(folder)


@pytest.fixture(scope="module")
def tolerance(reference: Reference) -> Tolerance:
    """As of a server whose states are within 1e-5: what batched decoding in float32 shows."""
    sessions = [np.full(64, 1e-10) for _ in range(10)]
    return fit_tolerance(sessions, width=32, dtype="float32", model=reference.identity.digest)


@pytest.fixture(scope="module")
def honest(folder: Path) -> Iterator[tuple[str, list[Transcript]]]:
    with serving("serve", "--model", str(folder)) as (url, fingerprints):
        yield fingerprints, asked(url)


def checked(url: str, reference: Reference, transcripts: list[Transcript], terms: Terms) -> Checked:
    with FingerprintClient(url) as prover:
        return check(prover, reference, transcripts, terms)


def test_an_honest_prover_passes(
    honest: tuple[str, list[Transcript]], reference: Reference, tolerance: Tolerance
) -> None:
    url, transcripts = honest
    result = checked(url, reference, transcripts, Terms(tolerance))
    assert result.outcome is Outcome.PASS, result.faults
    assert result.evidence.tokens == sum(len(one.output_ids) for one in transcripts)
    assert result.opened == 2 * ANSWERS
    claims = {claim.name: claim for claim in fingerprint_claims(result, reference.identity.digest)}
    assert claims["fingerprint.coverage"].value == 1
    # At least the byte a token, the root, and two states of 32 float32 numbers an answer.
    least = 8 + (256 + 2 * 32 * 32) * ANSWERS / result.evidence.tokens
    value = claims["fingerprint.channel"].value
    assert value is not None
    assert value >= least


def test_another_transcript_was_not_committed_to(
    honest: tuple[str, list[Transcript]], reference: Reference, tolerance: Tolerance
) -> None:
    url, transcripts = honest
    other = replace(transcripts[0], output_ids=(*transcripts[0].output_ids[:-1], 7))
    result = checked(url, reference, [other], Terms(tolerance))
    assert result.faults == {0: Fault.ABSENT}
    assert result.outcome is Outcome.CANNOT_TELL


def test_a_rounded_model_is_noticed(folder: Path, reference: Reference, tolerance: Tolerance) -> None:
    with serving("redteam", "serve", "int8", "--model", str(folder)) as (url, fingerprints):
        transcripts = asked(url)
        result = checked(fingerprints, reference, transcripts, Terms(tolerance))
    assert result.outcome is Outcome.FAIL
    assert 0 < result.evidence.crossed_at <= 5


def test_requests_that_are_none_are_refused(honest: tuple[str, list[Transcript]]) -> None:
    url, _ = honest
    for path, body, status in (
        ("/v1/fingerprints/answer", b"{}", 400),
        ("/v1/fingerprints/answer", b"x" * 10_000, 404),
        ("/v1/fingerprints/open", b'{"tokens": [-1], "transcript": "00"}', 400),
        ("/v1/fingerprints/open", b'{"tokens": [0], "transcript": "%s"}' % (b"0" * 64), 404),
    ):
        answer = httpx.post(url + path, content=body)
        assert answer.status_code == status, answer.text
        assert "message" in answer.json()["error"]
    assert httpx.get(f"{url}/v1/fingerprints?first=-1").status_code == 400


def test_nobody_there_is_one_sentence(reference: Reference, tolerance: Tolerance) -> None:
    with pytest.raises(UsageError, match="No prover answers"):
        checked("http://127.0.0.1:9", reference, [], Terms(tolerance))


def test_another_address_is_no_prover_and_no_file_is_no_tolerance(
    honest: tuple[str, list[Transcript]], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no fingerprints"):
        FingerprintClient(f"{honest[0]}/v1").commitments()
    with pytest.raises(UsageError, match="cannot be read"):
        load_tolerance(tmp_path / "nothing.json")


def test_a_tolerance_of_another_model_is_refused(
    honest: tuple[str, list[Transcript]], reference: Reference, tolerance: Tolerance
) -> None:
    with pytest.raises(UsageError, match="calibrate"):
        checked(honest[0], reference, [], Terms(replace(tolerance, model="sha256:other")))


class _Lying(StateStore):
    """Commits to states of nothing, and computes the right ones once the projection is known."""

    def __init__(self, right: dict[bytes, np.ndarray]) -> None:
        super().__init__(1 << 30)
        self.right = right

    def answer(self, transcript: bytes, seed: bytes, coordinates: int, step: float) -> bytes:
        states = self.right[transcript]
        return fingerprint(states, seed, transcript, coordinates=coordinates, step=step).tobytes()


class _Opening(_Lying):
    """And opens the right states, which are not under its root."""

    def open(self, transcript: bytes, tokens: Sequence[int]) -> list[tuple[bytes, tuple[bytes, ...]]]:
        right = self.right[transcript]
        opened = zip(tokens, super().open(transcript, tokens), strict=True)
        return [(encode_state(right[token], "float32"), path) for token, (_, path) in opened]


@pytest.mark.parametrize(
    ("kind", "fault"), [(_Lying, Fault.NOT_THE_PROJECTION), (_Opening, Fault.NOT_COMMITTED_STATE)]
)
def test_answers_that_are_made_after_the_challenge_are_noticed(
    kind: type[_Lying],
    fault: Fault,
    honest: tuple[str, list[Transcript]],
    reference: Reference,
    tolerance: Tolerance,
) -> None:
    _, transcripts = honest
    sequences = [(*one.prompt_ids, *one.output_ids) for one in transcripts]
    right = reference_states(reference, sequences, [len(one.prompt_ids) for one in transcripts])
    store = kind({one.digest(): states for one, states in zip(transcripts, right, strict=True)})
    for one in transcripts:
        nothing = [bytes(4 * 32)] * len(one.output_ids)
        store.add(commit(one.digest(), nothing, 32, "float32"), nothing)
    result = checked(attach(store, "127.0.0.1:0"), reference, transcripts, Terms(tolerance))
    assert set(result.faults.values()) == {fault}
    assert result.outcome is Outcome.FAIL
    assert result.evidence.tokens == 0


def test_a_commitment_that_was_collected_cannot_change(
    honest: tuple[str, list[Transcript]], reference: Reference, tolerance: Tolerance
) -> None:
    url, transcripts = honest
    digest = transcripts[0].digest()
    old = Committed.of(0, Commitment(digest, bytes(32), len(transcripts[0].output_ids), 32, "float32"))
    with FingerprintClient(url) as prover:
        result = check(prover, reference, transcripts[:1], Terms(tolerance), earlier=[old])
    assert result.faults == {0: Fault.CHANGED}
    assert result.outcome is Outcome.FAIL


def test_states_are_forgotten_to_make_room() -> None:
    store = StateStore(100)
    for number in range(5):
        states = [bytes(30)]
        store.add(commit(bytes([number]) * 32, states, 8, "float32"), states)
    assert [one.number for one in store.commitments(0, 10)] == [2, 3, 4]
    assert [one.number for one in store.commitments(3, 1)] == [3]
    with pytest.raises(UsageError):
        store.answer(bytes(32), bytes(32), 1, 0.1)


@pytest.mark.slow
def test_the_whole_way_through_a_tap(tmp_path: Path, folder: Path) -> None:
    """Calibrate, collect and check as commands, the log from a tap."""

    def ullage(*arguments: str, expect: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ullage", *arguments], capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == expect, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout

    keys, log, tolerance = (str(tmp_path / name) for name in ("keys", "log", "tolerance.json"))
    ullage("keys", "init", keys, "--role", "tap")
    with ExitStack() as stack:
        url, fingerprints = stack.enter_context(serving("serve", "--model", str(folder)))
        ullage(
            "fingerprint", "calibrate", fingerprints, "--server", url, "--model", str(folder),
            "--answers", "30", "--out", tolerance,
        )  # fmt: skip
        tap = ["tap", "--upstream", url, "--log", log, "--keys", keys, "--model", str(folder)]
        process = subprocess.Popen(
            [sys.executable, "-m", "ullage", *tap, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        address = next(match[1] for line in process.stdout if (match := re.search(r"(http://\S+)", line)))
        for number in range(12):
            body = {"prompt": f"number {number}", "max_tokens": 40}
            assert httpx.post(f"{address}/v1/completions", json=body, timeout=60).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()
        collected = str(tmp_path / "commitments.jsonl")
        ullage("fingerprint", "collect", fingerprints, "--out", collected)
        said = ullage(
            "fingerprint", "check", fingerprints, log, "--model", str(folder), "--tolerance", tolerance,
            "--commitments", collected, "--key", f"{keys}/log.pub", "--record-keys", keys,
        )  # fmt: skip
    assert "pass: " in said
    assert "fingerprint.coverage: >= 1 " in said
