"""Control groups of both versions, and what is listed as not reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from ullage.errors import UsageError
from ullage.memory.agent import inventory, makers
from ullage.memory.agent.inventory import Group, find_group, take


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_version_1_finds_the_nearest_limit(tmp_path: Path) -> None:
    process = tmp_path / "cgroup"
    process.write_text("9:name=systemd:/\n4:memory:/outer/inner\n")
    names = {"memory__usage_in_bytes": "500", "memory__stat": "total_inactive_file 100\n"}
    write(tmp_path / "root/memory/outer", memory__limit_in_bytes="1000", **names)
    write(tmp_path / "root/memory/outer/inner", memory__limit_in_bytes=str((1 << 63) - 4096), **names)
    found = find_group(process, tmp_path / "root")
    assert found is not None
    assert (found.limit, found.used, found.reclaimable, found.version) == (1000, 500, 100, 1)


def test_version_2_takes_the_smallest_limit(tmp_path: Path) -> None:
    process = tmp_path / "cgroup"
    process.write_text("0::/a/b\n")
    names = {"memory__current": "10", "memory__stat": "inactive_file 4\n"}
    write(tmp_path / "root/a", memory__max="700", **names)
    write(tmp_path / "root/a/b", memory__max="900", **names)
    found = find_group(process, tmp_path / "root")
    assert found is not None
    assert (found.limit, found.version) == (700, 2)


def test_no_limit_is_no_group(tmp_path: Path) -> None:
    process = tmp_path / "cgroup"
    process.write_text("0::/a\n")
    write(tmp_path / "root/a", memory__max="max", memory__current="1", memory__stat="")
    assert find_group(process, tmp_path / "root") is None


def test_the_host_keeps_a_reserve_and_the_rest_is_listed() -> None:
    seen = take("host", limit=8 << 20)
    assert seen.reachable <= 8 << 20
    assert seen.reachable + sum(size for _, size in seen.unreached) <= seen.machine
    assert any("reserve" in what and size >= 1 << 30 for what, size in seen.unreached)
    assert dict(seen.unreached)["page tables of what is mapped"] == seen.reachable // 512
    unlimited = take("host")
    assert unlimited.reachable // 512 <= dict(unlimited.unreached)["page tables of what is mapped"] + 1
    with pytest.raises(UsageError):
        take("moon")


@pytest.mark.parametrize(("limit", "processes"), [(1 << 29, 0), (1 << 30, 1), (1 << 34, 2)])
def test_a_group_keeps_room_for_the_processes_that_will_make_noise(
    limit: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(makers, "usable_cores", lambda: 2)
    monkeypatch.setattr(inventory, "find_group", lambda: Group(Path("/"), limit, 0, 0, 2))
    kept = dict(take("group").unreached)["reserve that keeps the machine alive"]
    assert kept == (24 + 24 * processes) << 20
