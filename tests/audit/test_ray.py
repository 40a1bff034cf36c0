"""An audit on a Ray cluster: real workers, one of them killed, and the bits of one process."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.audit.conftest import TAP_KEYS, Setting, opened
from ullage import __version__
from ullage.audit.bundle.folder import verify_bundle
from ullage.audit.cluster import shards
from ullage.audit.cluster.ray_cluster import Cluster, RayOptions, joined
from ullage.audit.cluster.ray_pool import RayPool
from ullage.audit.cluster.ray_reference import RayReference
from ullage.audit.cluster.ray_worker import Introduction, Task
from ullage.audit.run import AuditRequest, audit_log
from ullage.errors import ExitCode, FaultError, UsageError
from ullage.log.keys import load_verifier

# Not imported here: how Ray behaves is settled when it is imported, and the audit does that.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

Logs = dict[str, Path]
BUNDLE = ("claims.json", "evidence/audit.parquet", "evidence/records.parquet")
LISTENING = "0A"  # the state of such a socket in /proc/net/tcp
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many shards of a small log."""
    monkeypatch.setattr(shards, "_LEAST_TOKENS", 1)


@dataclass(frozen=True)
class Head:
    """Where a cluster's head listens, and the environment of those who may join."""

    address: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """A cluster of this process's own, for two workers."""
    with joined(RayOptions(workers=2)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """The address of a cluster that somebody started with `ray start`: two processors, a token of its own."""
    settings = {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32, "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }  # fmt: skip
    ray = Path(sys.executable).with_name("ray")
    folder = tmp_path_factory.mktemp("r")
    command = [
        str(ray), "start", "--head", "--port=0", "--num-cpus=2", "--include-dashboard=false", "--block",
        f"--temp-dir={folder}", "--object-store-memory=100000000",
    ]  # fmt: skip
    address = folder / "ray_current_cluster"
    child = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **settings},
    )
    try:
        yield Head(_appears(address, child), settings)
    finally:
        child.terminate()
        child.wait(60)


def _appears(path: Path, child: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 120
    while not path.exists() or not path.read_text().strip():
        assert child.poll() is None, "ray start ended"
        assert time.monotonic() < deadline, "ray start does not get ready"
        time.sleep(0.2)
    return path.read_text().strip()


def _descendants() -> dict[int, str]:
    """Processes that this one started, directly or not, by number with their names."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
                names[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            parents[int(folder.name)] = int(after_name[1])
    ours = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return {child: names[child] for child in ours - {os.getpid()}}


def _target(handle: Path) -> str:
    with contextlib.suppress(FileNotFoundError):  # files are closed
        return os.readlink(handle)
    return ""


def _listening(processes: set[int]) -> set[str]:
    """Addresses, as the kernel writes them, on which these processes listen for TCP."""
    inodes = set()
    for process in processes:
        with contextlib.suppress(FileNotFoundError):  # processes end
            for handle in Path(f"/proc/{process}/fd").iterdir():
                target = _target(handle)
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                found.add(fields[1].rpartition(":")[0])
    return found


def _kill_waiting_workers() -> list[int]:
    """End workers that wait for their next shard, at least one: called when one has just finished, it dies
    with what it is given next."""
    deadline = time.monotonic() + 60
    while True:
        found = [number for number, name in _descendants().items() if name.strip() == "ray::Worker"]
        for number in found:
            os.kill(number, signal.SIGKILL)
        if found:
            return found
        assert time.monotonic() < deadline, "no worker waits"
        time.sleep(0.01)


@pytest.mark.usefixtures("small_shards")
def test_a_killed_worker_costs_time_and_changes_no_bit(
    logs: Logs, model: Path, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole audit with a Ray of its own, which nothing outside this machine can reach."""
    killed: list[int] = []
    listening: set[str] = set()
    steps: list[int] = []

    def kill_one(stage: str, done: int, total: int) -> None:
        steps.append(done)
        if stage != "recomputing tokens" or not 0 < done < total or killed:
            return
        processes = _descendants()
        listening.update(_listening({os.getpid(), *processes}))
        killed.extend(_kill_waiting_workers())

    request = AuditRequest(
        log=logs["many-changed"], model=model, keys=keys, record_keys=TAP_KEYS[0], out=tmp_path / "local",
        entropy=True,
    )  # fmt: skip
    local = audit_log(request)
    spread = audit_log(replace(request, out=tmp_path / "ray", ray=RayOptions(workers=2)), kill_one)

    assert killed
    assert capsys.readouterr().out == "", "standard output is the command's own"
    assert listening
    assert listening <= LOOPBACK
    assert len(set(steps)) > 3, "results do not stream back"
    assert any("were lost on the way" in note for note in spread.notes), spread.notes
    assert (spread.verdict, spread.claims, spread.rate) == (local.verdict, local.claims, local.rate)
    for name in BUNDLE:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
    one, other = (
        verify_bundle(tmp_path / name, load_verifier(keys / "verdict.pub")) for name in ("local", "ray")
    )
    assert one.subject == other.subject
    assert one.predicate.model_copy(update={"created": "0"}) == other.predicate.model_copy(
        update={"created": "0"}
    )
    assert not [name for name in _descendants().values() if "ray" in name], "Ray was left running"


def run(head: Head, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line, as one who may join the cluster has it."""
    done = subprocess.run(
        [sys.executable, "-m", "ullage", *map(str, arguments)], capture_output=True, text=True, check=False,
        timeout=600, env={**os.environ, **head.environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def test_the_command_bounds_on_a_cluster_that_is_there(head: Head, setting: Setting) -> None:
    arguments = (
        "audit", setting.leaking, "--model", setting.model, *opened(), "--keys", setting.keys,
        "--calibration", setting.calibration, "--bound", "0.06", "--json",
    )  # fmt: skip
    local = run(head, *arguments)
    spread = run(head, *arguments, "--engine", "ray", "--address", head.address, "--workers", "2")
    assert spread.returncode == local.returncode, spread.stderr
    one, other = json.loads(local.stdout), json.loads(spread.stdout)
    assert any(f"of the Ray cluster at {head.address}" in note for note in other["notes"])
    for document in (one, other):
        del document["notes"]
    assert one == other


def test_who_has_no_token_does_not_join(head: Head, logs: Logs, model: Path) -> None:
    stranger = replace(head, environment={**head.environment, "RAY_AUTH_TOKEN": "cd" * 32})
    arguments = ("audit", logs["small"], "--model", model, *opened(), "--engine", "ray")
    done = run(stranger, *arguments, "--address", head.address)
    assert done.returncode == ExitCode.USAGE
    assert f"No Ray cluster could be joined at {head.address}" in done.stderr


def introduction(model: Path, cluster: Cluster) -> Introduction:
    reference = RayReference(cluster, model)
    return Introduction(__version__, reference.identity.digest, reference.stack_digest, reference.dtype)


SHARD = shards.Shard(0, (), 0, 1)


def score_with(cluster: Cluster, task: Task, expected: Introduction) -> None:
    RayPool(cluster, task, expected, [], lambda *_: None).run([SHARD])


def test_unequal_workers_are_refused(own: Cluster, model: Path) -> None:
    """Other weights under the same path, another stack: their scores would be other bits."""
    known = introduction(model, own)
    task = Task(str(model), "greedy", 1)
    with pytest.raises(UsageError, match="numerical stack"):
        score_with(own, task, replace(known, stack="other"))
    pool = RayPool(own, task, known, [], lambda *_: None)
    for field, said in (("version", "another version of Ullage"), ("model", "other weights")):
        with pytest.raises(UsageError, match=said):
            pool._check(replace(known, **{field: "other"}))
    with pytest.raises(FaultError, match="something else than its name"):
        pool._check(None)


def test_workers_without_the_model_are_refused(own: Cluster, model: Path) -> None:
    with pytest.raises(UsageError, match="cannot take part: /nowhere"):
        score_with(own, Task("/nowhere", "greedy", 1), introduction(model, own))


def test_work_that_ends_every_worker_ends_the_audit(own: Cluster, model: Path) -> None:
    """Here the profile's name is unknown to the workers, so each of them fails at its first shard."""
    with pytest.raises(FaultError, match="3 workers were lost over the same") as caught:
        score_with(own, Task(str(model), "dice/v9", 1), introduction(model, own))
    assert "dice/v9" in str(caught.value)
