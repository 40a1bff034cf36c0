"""Deadlines: what takes too long is left to itself, and what fails in time fails as it is."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.log.processes import hostile
from tests.log.samples import make_keys, make_log
from ullage.audit.engine.client import EngineClient
from ullage.deadline import within
from ullage.errors import FaultError, UsageError
from ullage.fingerprint.client import FingerprintClient
from ullage.log.notes.checkpoint import open_checkpoint
from ullage.log.notes.cosignature import WitnessSigner
from ullage.log.source import DirectorySource
from ullage.log.tree.prover import Prover
from ullage.log.witness.asking import WitnessClient
from ullage.probe.client import Client, Limits


def test_work_returns_and_raises_as_it_would_alone() -> None:
    def fails() -> int:
        raise TimeoutError("its own")

    assert within(10, lambda: 5, "late") == 5
    with pytest.raises(TimeoutError, match="its own"):
        within(10, fails, "late")


def test_work_that_takes_too_long_is_not_waited_for() -> None:
    go_on = threading.Event()
    began = time.monotonic()
    with pytest.raises(FaultError, match="too late"):
        within(0.1, go_on.wait, "too late")
    assert time.monotonic() - began < 5
    go_on.set()


def test_a_witness_that_never_ends_its_head_is_given_up(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    log = make_log(tmp_path / "log", keys, 2)
    note = (log / "checkpoint").read_bytes()
    prover = Prover(DirectorySource(log), open_checkpoint(note, keys.log.verifier), note)
    witness = WitnessSigner("witness.example/w1", bytes([7]) * 32).verifier
    began = time.monotonic()
    with hostile("drip_head") as url, pytest.raises(FaultError, match="took more than 1 seconds"):
        WitnessClient(witness, url, timeout_s=0.5).cosign(prover, note)
    assert time.monotonic() - began < 8


def test_no_server_that_never_ends_its_head_holds_a_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that is probed, a prover's fingerprints, an engine as the reference."""
    monkeypatch.setattr("ullage.fingerprint.client._SECONDS", 0.5)
    monkeypatch.setattr("ullage.audit.engine.client._SECONDS", 0.5)
    began = time.monotonic()
    with hostile("drip_head") as url:
        provider = Client(url, limits=Limits(attempts=1, seconds=0.5))
        with pytest.raises(FaultError, match="it took too long"), provider:
            pass
        assert provider.troubles.counts["timeouts"] == 1
        with FingerprintClient(url) as prover, pytest.raises(FaultError, match="did not answer within"):
            prover.commitments()
        with pytest.raises(UsageError, match="did not answer within"), EngineClient(url, 100):
            pass
    assert time.monotonic() - began < 15
