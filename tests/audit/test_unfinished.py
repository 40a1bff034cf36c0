"""An audit that is killed goes on where it stopped, and its bundle is the one of an audit that was not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.audit.conftest import TAP_KEYS, Setting, run_ullage
from ullage.audit.bundle.folder import CLAIMS, RECORDS, TOKENS, verify_bundle
from ullage.audit.unfinished import Unfinished, place_of
from ullage.log.keys import load_verifier
from ullage.log.reader import LogReader
from ullage.log.record import Record
from ullage.log.sealed.openers import load_opener

# The command line as it is, but that the process is killed after so many batches were kept.
KILLED = """
import os, signal, sys
from ullage.audit.unfinished import Unfinished
from ullage.cli.main import run

keep, left = Unfinished.keep, int(sys.argv[1])

def keep_and_die(self, batch, scores):
    global left
    keep(self, batch, scores)
    left -= 1
    if not left:
        os.kill(os.getpid(), int(sys.argv[2]))

Unfinished.keep = keep_and_die
# A shell that runs the tests in the background has its children ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
run(sys.argv[3:])
"""


def killed(arguments: list[str], *, after: int, by: signal.Signals) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(after), str(int(by)), *arguments],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def command(setting: Setting, out: Path, *more: str) -> list[str]:
    given = ["audit", setting.window, "--model", setting.model, "--keys", setting.keys, "--out", out]
    return [*map(str, given), "--record-keys", str(TAP_KEYS[0]), *more]


def evidence(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in (CLAIMS, TOKENS, RECORDS)]


def test_a_killed_audit_goes_on_and_gives_the_same_bundle(setting: Setting, tmp_path: Path) -> None:
    more = ["--calibration", str(setting.calibration), "--bound", "0.01", "--entropy"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    first = run_ullage(*command(setting, whole, *more, "--json"))
    assert killed(command(setting, broken, *more), after=2, by=signal.SIGKILL).returncode == -signal.SIGKILL
    assert not broken.exists()
    assert len(list(place_of(broken).iterdir())) == 2

    second = run_ullage(*command(setting, broken, *more, "--json"))
    assert second.returncode == first.returncode
    assert evidence(broken) == evidence(whole)
    notes = [note for note in json.loads(second.stdout)["notes"] if "recomputed before" in note]
    assert notes
    assert not any("recomputed before" in note for note in json.loads(first.stdout)["notes"])
    assert not place_of(broken).exists()
    assert not place_of(whole).exists()
    verifier = load_verifier(setting.keys / "verdict.pub")
    one, other = (verify_bundle(out, verifier) for out in (whole, broken))
    created = {"created": other.predicate.created}
    assert one.predicate.model_copy(update=created) == other.predicate


def test_interrupted_by_hand_it_says_so(setting: Setting, tmp_path: Path) -> None:
    done = killed(command(setting, tmp_path / "out"), after=1, by=signal.SIGINT)
    assert done.returncode == 130
    assert "The same command goes on" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def records(setting: Setting) -> list[Record]:
    reader = LogReader.open(setting.window, None, load_opener(None, TAP_KEYS[0]))
    return list(reader.records())[:3]


def test_scores_are_found_under_their_own_setting_alone(
    setting: Setting, records: list[Record], tmp_path: Path
) -> None:
    from ullage.audit.recompute import recompute
    from ullage.model.reference import Reference
    from ullage.sampling.profiles import get_profile

    batch = records[:1]
    profile = get_profile("murmur3-gumbel/f64")
    scores = recompute(Reference.load(setting.model), profile, batch)
    kept = Unfinished(tmp_path / "kept", b"k" * 32, ["float32"])
    kept.keep(batch, scores)

    found = kept.find(batch)
    assert found is not None
    for name in ("token", "reference", "margin", "rank", "entropy"):
        assert np.array_equal(getattr(found[0], name), getattr(scores[0], name), equal_nan=True), name
    assert Unfinished(tmp_path / "kept", b"j" * 32, ["float32"]).find(batch) is None
    assert Unfinished(tmp_path / "kept", b"k" * 32, ["bfloat16"]).find(batch) is None
    assert kept.under("more").find(batch) is None
    assert kept.find(records[1:2]) is None
    assert kept.find(records[:2]) is None
    seeded = replace(batch[0], open=batch[0].open.model_copy(update={"seed": batch[0].open.seed ^ 1}))
    assert kept.find([seeded]) is None

    file = next((tmp_path / "kept").iterdir())
    whole = file.read_bytes()
    for place in (0, 40, len(whole) // 2, len(whole) - 1):  # what others wrote there is not read
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        assert kept.find(batch) is None
    file.write_bytes(whole[:-1])
    assert kept.find(batch) is None
    file.write_bytes(whole)
    assert kept.find(batch) is not None
