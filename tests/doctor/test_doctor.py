"""The doctor on this machine and on a restricted one: right about each line, and it changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.doctor.isolation import effective_capabilities, in_user_namespace
from ullage.doctor.machine import steal_share

SETPRIV = shutil.which("setpriv")
UNSHARE = shutil.which("unshare") or ""
PRLIMIT = shutil.which("prlimit") or ""
_RESTRICTED = ("--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs")
_KEYS = {
    "capabilities", "namespaces", "cable", "packets", "groups", "locked-memory", "instructions", "steal",
    "accelerator", "software", "durable-writes", "home",
}  # fmt: skip


def run(folder: Path, *before: str, **environment: str) -> dict[str, dict[str, Any]]:
    command = [*before, sys.executable, "-m", "ullage", "doctor", "--json", "--dir", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["claims"] == []
    return {finding["key"]: finding for finding in document["findings"]}


def test_every_line_is_there_and_agrees_with_the_kernel(tmp_path: Path) -> None:
    names = sorted(os.listdir("/sys/class/net"))
    found = run(tmp_path)
    assert set(found) == _KEYS
    mask = effective_capabilities(Path("/proc/self/status").read_text("utf-8"))
    assert ("CAP_NET_RAW" in found["capabilities"]["detail"].partition("lacks")[0]) == bool(mask >> 13 & 1)
    if not mask >> 21 & 1:
        assert found["namespaces"]["state"] == "no"
    assert found["durable-writes"]["state"] in ("yes", "partly")
    assert list(tmp_path.iterdir()) == []
    assert sorted(os.listdir("/sys/class/net")) == names


@pytest.mark.skipif(SETPRIV is None, reason="setpriv is not installed: no restricted machine to try")
def test_it_is_right_about_a_machine_that_may_do_nothing(tmp_path: Path) -> None:
    assert SETPRIV is not None
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o500)
    before = (SETPRIV, *_RESTRICTED) if os.geteuid() == 0 else (SETPRIV, "--no-new-privs")
    found = run(home, *before, HOME=str(home))
    for key in ("capabilities", "namespaces", "cable", "packets", "durable-writes", "home"):
        assert found[key]["state"] == "no", found[key]
    assert "Operation not permitted" in found["namespaces"]["detail"]
    assert "wire.unexplained_fraction" in found["packets"]["claims"]
    assert "CAP_IPC_LOCK" in found["locked-memory"]["means"] or found["locked-memory"]["state"] == "yes"
    for key in ("instructions", "software"):  # what needs no permission is as before
        assert found[key]["state"] in ("yes", "partly")


def user_namespaces() -> bool:
    """Whether this machine lets a process be somebody else in a user namespace."""
    if not UNSHARE or not PRLIMIT:
        return False
    tried = [UNSHARE, "--user", "--mount", "--map-root-user", "true"]
    return subprocess.run(tried, capture_output=True, check=False, timeout=20).returncode == 0


@pytest.mark.skipif(not user_namespaces(), reason="no user namespace here to be somebody else in")
def test_it_is_right_about_a_user_who_is_not_root() -> None:
    """User 1000 with a limit on locked memory, and a folder in memory for the log."""
    before = (PRLIMIT, "--memlock=65536:65536", UNSHARE, "--user", "--map-user=1000", "--map-group=1000")
    found = run(Path("/dev/shm"), *before)  # noqa: S108 (a file system that is no disk is what is meant)
    assert found["capabilities"]["state"] == "no"
    for key in ("namespaces", "cable", "packets"):
        assert found[key]["state"] == "no", found[key]
        assert "not permitted" in found[key]["detail"].lower(), found[key]
    assert "within a user namespace they are" in found["namespaces"]["detail"]
    assert found["locked-memory"]["state"] == "no"
    assert "the limit is 64 KiB" in found["locked-memory"]["detail"]
    assert "raise the limit" in found["locked-memory"]["means"]
    assert found["durable-writes"]["state"] == "partly", "nothing in /dev/shm survives, however fast it is"
    assert "does not survive" in found["durable-writes"]["means"]


@pytest.mark.skipif(not user_namespaces(), reason="no user namespace here to be root in")
def test_it_is_right_about_a_root_who_is_none_and_a_kernel_that_makes_no_namespaces(tmp_path: Path) -> None:
    """As in a rootless container: capabilities count inside alone; no namespaces; a read-only home."""
    home = tmp_path / "home"
    home.mkdir()
    script = (
        'mount -t tmpfs -o ro none "$HOME" && for kind in user net mnt pid ipc uts cgroup; '
        'do echo 0 > /proc/sys/user/max_${kind}_namespaces; done; exec "$@"'
    )
    before = (UNSHARE, "--user", "--mount", "--map-root-user", "/bin/sh", "-ec", script, "sh")
    found = run(home / "nothing", PRLIMIT, "--memlock=65536:65536", *before, HOME=str(home))
    assert found["capabilities"]["state"] == "partly"
    assert "user namespace alone" in found["capabilities"]["detail"]
    assert found["namespaces"]["state"] == found["cable"]["state"] == found["packets"]["state"] == "no"
    assert "limit is reached" in found["namespaces"]["detail"]
    assert "user.max_net_namespaces" in found["namespaces"]["means"]
    assert "run it as root" not in found["namespaces"]["means"], "root is limited too"
    assert found["locked-memory"]["state"] == "no", "CAP_IPC_LOCK of a user namespace locks nothing"
    assert found["home"]["state"] == "no"
    assert "Read-only file system" in found["home"]["detail"]
    assert found["durable-writes"]["state"] == "no"


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("", False),
        ("         0          0 4294967295\n", False),
        ("         0       1000          1\n", True),
    ],
)
def test_a_user_namespace_is_one_that_maps_not_everybody(text: str, inside: bool) -> None:
    assert in_user_namespace(text) is inside


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_steal_is_the_share_of_all_ticks(stolen: int, other: int) -> None:
    before = "cpu  10 0 10 100 0 0 0 5 0 0\n"
    after = f"cpu  {10 + other} 0 10 100 0 0 0 {5 + stolen} 0 0\n"
    share = steal_share(before, after)
    assert share == (None if stolen + other == 0 else pytest.approx(stolen / (stolen + other)))


@pytest.mark.parametrize("text", ["", "cpu 1 2 3\n", "cpuset\n"])
def test_a_kernel_that_does_not_say_is_unknown(text: str) -> None:
    assert steal_share(text, text) is None
