"""Sealed audits, and what two parties may tell each other."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audit.conftest import opened, run_ullage
from ullage.audit.run import AuditRequest, audit_log
from ullage.audit.verdict import Outcome
from ullage.errors import IntegrityError, MalformedError, UllageError, UsageError
from ullage.log.keys import load_verifier_keys
from ullage.log.reader import LogReader
from ullage.sealed.verdict import SIZE, SealedVerdict, outcome_byte, read_outcome

Logs = dict[str, Path]
VERDICT = SealedVerdict(Outcome.FAIL, 77, b"r" * 32, b"m" * 32, b"q" * 32)
SEED = b"s" * 32


def public() -> bytes:
    return VERDICT.sign(SEED)[128:160]


@given(st.sampled_from(list(Outcome)), st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32))
def test_a_verdict_is_read_back(outcome: Outcome, size: int, root: bytes) -> None:
    made = SealedVerdict(outcome, size, root, b"m" * 32, b"q" * 32)
    data = made.sign(SEED)
    assert len(data) == SIZE
    assert data == made.sign(SEED)  # a second signature could carry bits of its own
    assert SealedVerdict.read(data, data[128:160]) == made


@given(st.integers(0, SIZE - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    data = bytearray(VERDICT.sign(SEED))
    data[place] ^= change
    with pytest.raises(IntegrityError):  # MalformedError is one
        SealedVerdict.read(bytes(data), public())


@given(st.binary(max_size=300))
def test_other_bytes_are_no_verdict(data: bytes) -> None:
    with pytest.raises(MalformedError):
        SealedVerdict.read(data, public())


@given(st.binary(max_size=4))
def test_one_byte_leaves_a_sealed_process(data: bytes) -> None:
    """A process that says more, or something else, has given no verdict: four things can be told."""
    known = {outcome_byte(outcome): outcome for outcome in Outcome}
    assert len(known) == 3
    assert read_outcome(data) == known.get(data)


def test_another_key_is_refused() -> None:
    with pytest.raises(UllageError, match="Another key"):
        SealedVerdict.read(VERDICT.sign(b"t" * 32), public())


_ATTEMPTS = """
import ctypes, fcntl, os, socket, sys
from ullage.sealed.confinement import seal
from ullage.errors import UsageError
try:
    seal()
except UsageError:
    sys.exit(77)
def refused(work):
    try:
        work()
    except OSError:
        return True
    return False
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_long
def checked(result):
    if result == -1:
        if ctypes.get_errno() != 1:
            raise RuntimeError(ctypes.get_errno())
        raise OSError
folder = sys.argv[1]
there = folder + '/there'
reading = os.open(there, os.O_RDONLY)
print(all([
    refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
    refused(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)),
    refused(lambda: socket.socketpair()),
    refused(lambda: open(folder + '/new', 'w')),
    refused(lambda: open(folder + '/there', 'a')),
    refused(lambda: os.mkdir(folder + '/d')),
    refused(lambda: os.rename(folder + '/there', folder + '/then')),
    refused(lambda: os.unlink(folder + '/there')),
    refused(lambda: os.utime(folder + '/there')),
    refused(lambda: os.kill(os.getppid(), 0)),
    refused(lambda: os.execv('/bin/true', ['true'])),
    refused(lambda: os.chmod(there, 0o600)),
    refused(lambda: os.fchmod(reading, 0o600)),
    refused(lambda: os.fchown(reading, os.getuid(), os.getgid())),
    refused(lambda: os.setxattr(there, 'user.a', b'1')),
    refused(lambda: fcntl.flock(reading, fcntl.LOCK_SH)),
    refused(lambda: fcntl.lockf(reading, fcntl.LOCK_SH)),
    refused(lambda: fcntl.fcntl(reading, fcntl.F_SETOWN, os.getppid())),
    refused(lambda: fcntl.ioctl(reading, 0x40086602, b'\\0' * 8)),
    refused(lambda: os.nice(1)),
    refused(lambda: os.pidfd_open(os.getppid())),
    refused(lambda: checked(libc.prctl(15, b'secret', 0, 0, 0))),
    refused(lambda: checked(libc.prctl(4, 1, 0, 0, 0))),
    refused(lambda: checked(libc.msgget(1, 0o1600))),
    refused(lambda: checked(libc.msgsnd(0, b'\\0' * 16, 1, 0))),
    refused(lambda: checked(libc.shmat(0, None, 0))),
    fcntl.fcntl(reading, fcntl.F_GETFD) >= 0,
    open(folder + '/there').read() == 'here',
]))
"""


def can_seal() -> bool:
    """Whether the kernel lets us; where not, a sealed audit refuses to run."""
    command = "from ullage.sealed.confinement import seal; seal()"
    return subprocess.run([sys.executable, "-c", command], capture_output=True, check=False).returncode == 0


def test_a_sealed_process_has_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("here")
    done = subprocess.run(
        [sys.executable, "-c", _ATTEMPTS, str(tmp_path)], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip("namespaces are not permitted here")
    assert done.stdout == "True\n", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.slow
@pytest.mark.parametrize("log", ["many-changed", "honest"])
def test_a_sealed_audit_says_what_an_open_one_says(
    logs: Logs, model: Path, keys: Path, tmp_path: Path, log: str
) -> None:
    if not can_seal():
        pytest.skip("namespaces are not permitted here")
    target, outcome = tmp_path / "verdict", Outcome.FAIL if log == "many-changed" else Outcome.CANNOT_TELL
    dtype = ["--dtype", "float32"]
    open_one = run_ullage("audit", logs[log], "--model", model, *opened(), "--keys", keys, *dtype, "--quiet")
    done = run_ullage(
        "audit", logs[log], "--model", model, *opened(), "--keys", keys, *dtype,
        "--sealed", target, "--json",
    )  # fmt: skip
    assert done.returncode == open_one.returncode
    assert done.returncode == outcome.exit_code
    assert json.loads(done.stdout)["verdict"] == outcome.value
    data = target.read_bytes()
    read = SealedVerdict.read(data, load_verifier_keys(keys).verdict.verifier.public)
    assert read.outcome is outcome


@pytest.mark.slow
def test_a_verdict_that_is_late_is_never_shown(logs: Logs, model: Path, keys: Path, tmp_path: Path) -> None:
    target = tmp_path / "verdict"
    done = run_ullage(
        "audit", logs["small"], "--model", model, *opened(), "--keys", keys, "--sealed", target,
        "--release-after", "1", "--quiet", expect=4,
    )  # fmt: skip
    assert "no verdict" in done.stderr
    assert not target.exists()


@pytest.mark.slow
def test_a_log_that_has_grown_is_not_the_one_agreed_on(logs: Logs, model: Path, keys: Path) -> None:
    """Root and size go into the verdict before the audit reads the log."""
    reader = LogReader.open(logs["small"], None)
    size, root = reader.checkpoint.size, reader.checkpoint.root
    request = AuditRequest(log=logs["small"], model=model, keys=keys, agreed=(size, root))
    assert audit_log(request).verdict.outcome in Outcome
    for other in ((size - 1, root), (size, bytes(32))):
        with pytest.raises(UsageError, match="agreed on"):
            audit_log(replace(request, agreed=other))


def bundle(logs: Logs, name: str, model: Path, keys: Path, out: Path) -> Path:
    run_ullage("audit", logs[name], "--model", model, *opened(), "--keys", keys, "--out", out, "--quiet")
    return out


def cross(one: Path, other: Path, keys: Path) -> subprocess.CompletedProcess[str]:
    key = keys / "verdict.pub"
    return run_ullage("audit", "cross", one, other, "--first-key", key, "--second-key", key)


@pytest.mark.slow
def test_two_honest_audits_agree_and_say_no_more(logs: Logs, model: Path, keys: Path, tmp_path: Path) -> None:
    one = bundle(logs, "small", model, keys, tmp_path / "one")
    other = bundle(logs, "small", model, keys, tmp_path / "other")
    done = cross(one, other, keys)
    assert done.stdout == "agree\ncompared: 3 records\n"
    assert done.returncode == 0


@pytest.mark.slow
def test_bundles_about_different_logs_are_not_compared(
    logs: Logs, model: Path, keys: Path, tmp_path: Path
) -> None:
    one = bundle(logs, "small", model, keys, tmp_path / "one")
    other = bundle(logs, "float32", model, keys, tmp_path / "other")
    done = cross(one, other, keys)
    assert done.returncode == 2
    assert not done.stdout
