"""Either side killed in the middle, as processes and through the command line: a clear end on the other."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.memory.agents import CALIBRATION, running
from tests.model.tiny_model import write_tiny_model
from ullage.audit.bundle.envelope import seal_payload
from ullage.errors import ExitCode
from ullage.log.keys import load_verifier_keys
from ullage.memory.calibration import PAYLOAD_TYPE

pytestmark = pytest.mark.slow  # every step is a process

# What the busiest machine does not finish before it is killed.
LONG_CYCLE = ("--mode", "rate-gap", "--size-mib", "32")
LONG = (*LONG_CYCLE, "--rounds", "1")


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options that name a verifier's keys and a calibration."""
    folder = tmp_path_factory.mktemp("verifier")
    made = subprocess.run(
        [sys.executable, "-m", "ullage", "keys", "init", str(folder / "keys"), "--role", "verifier"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0
    signer = load_verifier_keys(folder / "keys").verdict
    # kappa is about 1,000 with the slow one: 32 MiB take seconds of all cores.
    rates = CALIBRATION.model_copy(update={"read_rate": 2e9})
    (folder / "slow").write_bytes(seal_payload(rates.payload(), PAYLOAD_TYPE, signer))
    (folder / "rates").write_bytes(seal_payload(CALIBRATION.payload(), PAYLOAD_TYPE, signer))
    return ("--keys", str(folder / "keys"), "--calibration", str(folder / "rates"))


def slowly(trusted: tuple[str, ...]) -> tuple[str, ...]:
    return (*trusted[:-1], trusted[-1].replace("rates", "slow"))


def verifier(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ullage", "memory", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=200)
    assert "Traceback" not in errors
    return process.returncode, out, errors


def busy(process: subprocess.Popen[str]) -> None:
    """Wait until a fill is under way: the agent's threads compute."""
    stat = Path(f"/proc/{process.pid}/stat")

    def used() -> int:
        fields = stat.read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before, deadline = used(), time.monotonic() + 100
    while used() < before + 100:
        assert time.monotonic() < deadline, "the fill did not begin"
        time.sleep(0.05)


def test_an_agent_killed_while_it_fills_is_a_sentence(trusted: tuple[str, ...]) -> None:
    options = ("--listen", "127.0.0.1:0", "--machine", "host", "--limit-mib", "32", "--reserve-mib", "64")
    with running("agent", *options) as (address, process):
        asking = verifier("erase", address, *slowly(trusted), *LONG)
        busy(process)
        process.kill()
        code, out, errors = finished(asking)
    assert code in (ExitCode.FAIL, ExitCode.FAULT)
    assert not out
    assert "connection" in errors


def test_a_verifier_killed_while_the_agent_fills_can_come_again(trusted: tuple[str, ...]) -> None:
    options = ("--listen", "127.0.0.1:0", "--machine", "host", "--limit-mib", "32", "--reserve-mib", "64")
    with running("agent", *options) as (address, process):
        asking = verifier("erase", address, *slowly(trusted), *LONG)
        busy(process)
        asking.send_signal(signal.SIGKILL)
        asking.communicate()
        # The fill ends between two pieces, long before the next verifier has loaded its libraries.
        code, out, _ = finished(verifier("erase", address, *trusted, "--size-mib", "16", "--json"))
        assert code == ExitCode.PASS
        assert json.loads(out)["verdict"] == "pass"
        assert process.poll() is None


def test_a_verifier_killed_in_mid_cycle_and_started_again(trusted: tuple[str, ...], tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    options = ("--listen", "127.0.0.1:0", "--agent", "127.0.0.1:0", "--agent-machine", "host")
    limits = ("--agent-limit-mib", "32")
    body = {"prompt": [5, 6, 7], "max_tokens": 4, "seed": 1}
    with running("serve", "--model", str(folder), *options, *limits) as (line, process):
        assert process.stderr is not None
        found = re.search(r"memory agent at (\S+)", process.stderr.readline())
        assert found
        url = line.removeprefix("on ")
        cycling = verifier("cycle", found[1], *slowly(trusted), *LONG_CYCLE, "--model", str(folder))
        busy(process)
        cycling.kill()
        cycling.communicate()
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=200)
        assert answer.status_code >= 500
        assert "verifier has gone" in answer.text
        again = ("cycle", found[1], *trusted, "--size-mib", "16", "--model", str(folder), "--serve-mib", "8")
        code, _, errors = finished(verifier(*again, "--server", url))
        assert code in (ExitCode.PASS, ExitCode.CANNOT_TELL), errors
        assert httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code == 200
        cycling = verifier("cycle", found[1], *slowly(trusted), *LONG_CYCLE)
        busy(process)
        process.kill()
        code, out, errors = finished(cycling)
        assert code in (ExitCode.FAIL, ExitCode.FAULT)
        assert not out
