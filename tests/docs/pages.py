"""Runs a page's commands as printed: every line that begins with `$ `, in order, in one folder."""

from __future__ import annotations

import os
import random
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.docs.printed import ROOT

_PATIENCE = 240.0
_SIGNED_AFTER = 3.0  # as the pages say: the tap signs every two seconds


def commands(page: str) -> list[str]:
    """Every line of the page that begins with a prompt."""
    return re.findall(r"^\$ (.*)$", (ROOT / "docs" / page).read_text("utf-8"), re.M)


def blocks(page: str, language: str) -> list[str]:
    """Every fenced block of that language."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def free_port() -> str:
    """A port that nobody listens at just now, below those that outgoing connections take by themselves:
    one of these would be gone again before the command that is to have it runs.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return str(port)


@dataclass(frozen=True)
class Run:
    """One command and how it ended."""

    line: str
    code: int
    out: str
    err: str


def play(
    page: str,
    folder: Path,
    *,
    ports: tuple[str, ...] = (),
    instead: Mapping[str, str] | None = None,
    codes: Mapping[str, int] | None = None,
) -> list[Run]:
    """Run the page in `folder`.

    `ports` are printed ones, for which free ones are taken; `instead` says what else this machine has to
    replace; `codes` the exit code that a line with these words has to have, 0 without.
    """
    replaced = {f"127.0.0.1:{port}": f"127.0.0.1:{free_port()}" for port in ports} | dict(instead or {})
    done = []
    tapped = False
    with ExitStack() as background:
        for printed in commands(page):
            line = printed
            for old, new in replaced.items():
                line = line.replace(old, new)
            if line.endswith(" &"):
                background.enter_context(running(shlex.split(line.removesuffix(" &")), folder))
                tapped = tapped or line.startswith("ullage tap")
                continue
            if tapped and "log verify" in line:
                time.sleep(_SIGNED_AFTER)
            run = _shell(line, folder)
            expected = next((code for words, code in (codes or {}).items() if words in printed), 0)
            assert run.code == expected, f"{line}\n{run.out}{run.err}"
            done.append(run)
    return done


def _shell(line: str, folder: Path) -> Run:
    """As a reader's shell would: pages redirect and substitute."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    function = f'ullage() {{ "{sys.executable}" -m ullage "$@"; }}\n'
    made = subprocess.run(
        ["/bin/bash", "--norc", "-c", function + line], cwd=folder, capture_output=True, text=True,
        timeout=_PATIENCE, check=False, env=os.environ | {"PATH": path},
    )  # fmt: skip
    return Run(line, made.returncode, made.stdout, made.stderr)


@contextmanager
def running(arguments: list[str], folder: Path) -> Iterator[str]:
    """A command that goes on, once it has said that it listens: the line."""
    if arguments[0] == "ullage":
        arguments = [sys.executable, "-m", *arguments]
    with subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            assert said.startswith("listening on "), f"{arguments}: {said}"
            reader = threading.Thread(target=process.stdout.read, daemon=True)
            reader.start()  # so that the process never waits for somebody to read
            yield said
        finally:
            process.terminate()
            process.wait(timeout=60)
