"""The whole chain as people run it: `ullage tap --isolate`, the embedded server, `ullage wire meter`.

Every part is a process of its own, started from the command line.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.network import lab
from tests.network.isolated_tap import ENVIRONMENT, ULLAGE, isolated_tap, metered, wait_for_closes
from ullage.model.builtin import builtin_path
from ullage.model.tokenizer import ModelTokenizer
from ullage.network.frames import Reason

CHATTY = lab.ROOT / "tests/network/chatty_server.py"


@lab.needs_namespaces
def test_every_byte_behind_an_isolated_tap_is_explained(tmp_path: Path) -> None:
    with isolated_tap(tmp_path) as tap:
        with metered(tap) as found:
            tap.ask()
            tap.ask(stream=True, max_tokens=70)
            messages = [{"role": "user", "content": "Speak."}]
            chat = {"messages": messages, "n": 3, "temperature": 0.8, "prompt": None}
            connection = HTTPConnection(*tap.address, timeout=60)
            body = {name: value for name, value in chat.items() if value is not None}
            for _ in range(2):
                connection.request("POST", "/v1/chat/completions", json.dumps({**body, "max_tokens": 20}))
                assert connection.getresponse().read()
            connection.close()
            threads = [threading.Thread(target=tap.ask, kwargs={"max_tokens": 60}) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            tap.hang_up()
            tap.hang_up(stream=True)
            wait_for_closes(tap, 16)
        tap.stop()
    assert found["unexplained_by_reason"] == {}
    assert found["exit"] == 0
    counted = found["bytes"]
    assert counted["unexplained"] == 0
    assert counted["total"] == counted["record"] + counted["overhead"] + counted["heartbeat"]
    closes = [record.close for record in tap.records() if record.close is not None]
    assert len(closes) == 16
    assert counted["record"] == sum(
        (close.bytes_to_upstream or 0) + (close.bytes_from_upstream or 0) for close in closes
    )
    gone = [close for close in closes if close.outcome == "client-gone"]
    ends = ModelTokenizer.load(builtin_path()).eos_ids
    assert len(gone) == 2
    assert all(len(close.output_ids) == 120 or close.output_ids[-1] in ends for close in gone)


@pytest.mark.slow
@lab.needs_namespaces
def test_what_a_server_adds_to_its_answers_is_unexplained(tmp_path: Path) -> None:
    """A header of 24 bytes, its line end included, in each of two answers."""
    options = ["--isolate-readable", str(CHATTY)]
    with isolated_tap(tmp_path, *options, program=str(CHATTY)) as tap:
        with metered(tap) as found:
            tap.ask()
            tap.ask(max_tokens=10)
        tap.stop()
    assert found["exit"] == 1
    assert found["unexplained_by_reason"] == {Reason.CONTENT: 2 * 24}


def test_without_permission_nothing_is_claimed() -> None:
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("only root has permissions to give up, with setpriv")
    command = [setpriv, "--bounding-set=-sys_admin,-net_admin", "--inh-caps=-all", *ULLAGE, "tap", "--check"]
    command += ["--isolate", "server", "--cap", "100KB/s", "--log", "log", "--keys", "keys"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert found.returncode == 2, found.stderr
    assert "no isolation, no cap in the kernel" in found.stderr
    assert "isolated" not in found.stdout
