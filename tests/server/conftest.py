"""A small model, and the real server process that serves it on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.model.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@contextlib.contextmanager
def serving(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`ullage serve` with these options; yields its URL and the process, and ends it with SIGTERM."""
    command = [
        sys.executable,
        "-c",
        # A shell that runs the tests in the background has its children ignore SIGINT.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from ullage.cli.main import run; run()",
        "serve",
        "--listen",
        "127.0.0.1:0",
    ]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    killer = threading.Timer(180, process.kill)  # a server that never comes up ends the test, not the suite
    killer.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        killer.cancel()
        found = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
        assert found, f"{line!r} {process.communicate()[1] if process.poll() is not None else ''}"
        yield found[1], process
    finally:
        killer.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving("--model", str(folder)) as (address, _):
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as found:
        yield found
