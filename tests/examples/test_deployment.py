"""Units, compose file and image name commands, options, settings and files that exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.printed import ROOT
from ullage.cli.parsers import describe, every_command
from ullage.tap.config import read_config
from ullage.tap.explain import explain

EXAMPLES = ROOT / "examples"
UNITS = sorted((EXAMPLES / "systemd").glob("*.service"))
COMPOSE: dict[str, Any] = yaml.safe_load((EXAMPLES / "compose" / "compose.yaml").read_text("utf-8"))
OURS = {name: one for name, one in COMPOSE["services"].items() if one["image"] == "ullage"}
CONTAINER = (EXAMPLES / "container" / "Containerfile").read_text("utf-8")
_HARDENED = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateDevices": "yes",
    "CapabilityBoundingSet": "", "RestrictNamespaces": "yes", "SystemCallArchitectures": "native",
    "MemoryDenyWriteExecute": "yes", "PrivateTmp": "yes", "UMask": "0077",
}  # fmt: skip


def assert_runs(arguments: list[str]) -> None:
    """The words are a command, and every option is one of its own."""
    table = dict(every_command())
    words = next(" ".join(arguments[:many]) for many in (2, 1) if " ".join(arguments[:many]) in table)
    known = {flag for one in describe(words, table[words]).parameters for flag in one.flags}
    given = {one.split("=")[0] for one in arguments if one.startswith("--")}
    assert given <= known, (words, given - known)


class _Unit(RawConfigParser):
    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, delimiters=("=",), interpolation=None)
        self.read_string(path.read_text("utf-8"))

    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_and_is_hardened(path: Path) -> None:
    service = dict(_Unit(path)["Service"])
    program, *arguments = shlex.split(service["ExecStart"])
    assert program == "/opt/ullage/bin/ullage"
    assert_runs(arguments)
    assert {name: service.get(name) for name in _HARDENED} == _HARDENED
    users = (EXAMPLES / "systemd" / "ullage.sysusers").read_text("utf-8")
    assert f"u {service['User']} " in users


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here to check units with")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_but_the_missing_program(path: Path, tmp_path: Path) -> None:
    """With the program's place filled, `verify` is silent; `security` says how exposed a unit is."""
    copy = tmp_path / path.name
    copy.write_text(path.read_text("utf-8").replace("/opt/ullage/bin/ullage", "/bin/true"), "utf-8")
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],  # noqa: S607
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert [line for line in checked.stderr.splitlines() if path.name in line] == []
    if "--offline" not in _help():
        return
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(copy)],  # noqa: S607
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-300:]


def _help() -> str:
    asked = ["systemd-analyze", "--help"]
    return subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30).stdout


def test_the_taps_settings_are_settings_and_say_what_they_leave_open() -> None:
    settings = read_config({"keys": "keys", "log": "log"}, EXAMPLES / "systemd" / "tap.toml")
    said = "\n".join(explain(settings))
    assert "The configuration can run." in said
    assert "slots of 250 ms" in said


def test_the_isolated_tap_takes_back_what_the_unit_gives_up() -> None:
    extra = dict(_Unit(EXAMPLES / "systemd" / "ullage-tap-isolated.conf")["Service"])
    assert "CAP_NET_ADMIN" in extra["CapabilityBoundingSet"]
    assert extra["RestrictNamespaces"] == "no"


@pytest.mark.parametrize("name", [name for name in OURS if name != "keys"])
def test_compose_runs_commands_that_exist(name: str) -> None:
    assert_runs([str(one) for one in OURS[name]["command"]])


def test_compose_makes_its_keys_with_commands_that_exist() -> None:
    (script,) = OURS["keys"]["command"]
    lines = script.split(";")
    assert "--new-only" in lines[-1], "a witness does not start without a state"
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "ullage"
        assert_runs(arguments)


def test_compose_leaves_the_server_no_way_out_but_the_tap() -> None:
    services, networks = COMPOSE["services"], COMPOSE["networks"]
    address = services["server"]["networks"]["inside"]["ipv4_address"]
    assert set(services["server"]["networks"]) == {"inside"}
    assert networks["inside"]["internal"] is True
    assert networks["inside"]["x-podman.disable_dns"] is True  # it asks the world for whoever asks it
    (subnet,) = [one["subnet"] for one in networks["inside"]["ipam"]["config"]]
    assert f"--upstream=http://{address}:8000" in services["tap"]["command"]
    assert f"ip saddr {subnet} " in (EXAMPLES / "compose" / "inside.nft").read_text("utf-8")
    assert "ports" not in services["server"]
    inside = {name for name, one in services.items() if "inside" in one.get("networks", [])}
    assert inside == {"server", "tap"}
    assert {tuple(one["cap_drop"]) for one in services.values()} == {("ALL",)}
    assert all(one["read_only"] for one in services.values())


def test_compose_declares_what_it_uses() -> None:
    networks, volumes = set(COMPOSE["networks"]), set(COMPOSE["volumes"])
    for one in COMPOSE["services"].values():
        assert set(one.get("networks", [])) <= networks
        assert set(one.get("depends_on", [])) <= set(COMPOSE["services"])
        named = {str(mount).split(":")[0] for mount in one.get("volumes", [])}
        assert {name for name in named if not name.startswith(("$", ".", "/"))} <= volumes
        assert all(str(port).startswith("127.0.0.1:") for port in one.get("ports", []))


def test_the_image_copies_what_there_is_and_runs_as_nobody() -> None:
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", CONTAINER, re.M):
        assert [name for name in sources.split() if not (ROOT / name).exists()] == []
    assert re.search(r"^USER (?!0|root)", CONTAINER, re.M)
    assert 'ENTRYPOINT ["ullage"]' in CONTAINER
    build = OURS["tap"]["build"]
    assert (EXAMPLES / "compose" / build["context"] / build["dockerfile"]).resolve().exists()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert {"audit", "report"} <= set(extras)
