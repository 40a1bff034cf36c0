"""A newcomer's way from a fresh clone, timed: `make demo`, then the start page's commands in order.

python benchmarks/newcomer.py [--make-arguments 'PIP_ARGS=…'] [--clone FOLDER]

Clones this repository's last commit, sets up, and plays docs/index.md of the clone with the clone's own
environment, as printed. Where a printed port is taken another one is used. Servers are waited for until they
say that they listen, as the page says. Ends with 1 where a command fails or all of it took over ten minutes.
`--clone` takes a clone that is there, with `mine/` not yet made, and leaves cloning, set-up and demo out.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.docs.pages import free_port

ROOT = Path(__file__).parents[1]
_BAR = 600.0
_SIGNED_AFTER = 3.0  # the page: the tap signs every two seconds, so wait that long
_EXPECTED = {"ullage audit": 3}  # the page: after a few answers the audit says cannot-tell
_PORTS = ("8000", "8080")


def set_up(folder: Path, make_arguments: list[str]) -> list[tuple[str, float]]:
    """Clone into `folder` and run the README's first command: what was run, and seconds."""
    clone = ["git", "clone", "--quiet", str(ROOT), str(folder)]
    demo = ["make", "demo", *make_arguments]
    return [("git clone", _timed(clone, Path.cwd())), ("make demo", _timed(demo, folder))]


def play(folder: Path) -> list[tuple[str, float]]:
    """The start page's commands in `folder`: what was run, and seconds, waiting included."""
    page = (folder / "docs" / "index.md").read_text("utf-8")
    environment = os.environ | {"PATH": f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    ports = {f"127.0.0.1:{port}": f"127.0.0.1:{_port(port)}" for port in _PORTS}
    steps = []
    with ExitStack() as background:
        for printed in re.findall(r"^\$ (.*)$", page, re.M):
            line = printed
            for old, new in ports.items():
                line = line.replace(old, new)
            began = time.monotonic()
            if line.endswith(" &"):
                background.enter_context(_listening(line.removesuffix(" &"), folder, environment))
            else:
                if "log verify" in line:
                    time.sleep(_SIGNED_AFTER)
                code = next((code for words, code in _EXPECTED.items() if printed.startswith(words)), 0)
                _timed(["/bin/bash", "--norc", "-c", line], folder, environment, code)
            steps.append((" ".join(printed.split()[:3]), time.monotonic() - began))
    return steps


def _port(printed: str) -> str:
    listening = subprocess.run(
        ["/bin/bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{printed}"], check=False, capture_output=True
    )
    return free_port() if listening.returncode == 0 else printed


def _timed(
    command: list[str], folder: Path, environment: dict[str, str] | None = None, code: int = 0
) -> float:
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=3600
    )
    if done.returncode != code:
        sys.exit(
            f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return time.monotonic() - began


@contextmanager
def _listening(line: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(
        shlex.split(line), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if not said.startswith("listening on "):
                sys.exit(f"{line}: {said or 'ended without a word'}")
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield
        finally:
            process.terminate()


def main() -> int:
    """Do it all and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--make-arguments", default="", help="passed to make, e.g. 'PIP_ARGS=--no-cache-dir'")
    parser.add_argument("--clone", type=Path, help="a clone with its environment: only the start page")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.clone.resolve() if options.clone else Path(temporary) / "ullage"
        steps = [] if options.clone else set_up(folder, shlex.split(options.make_arguments))
        steps += play(folder)
    total = sum(seconds for _, seconds in steps)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = len(os.sched_getaffinity(0))
    print("| step | seconds |\n|---|---|")
    for name, seconds in [*steps, ("**all**", total)]:
        print(f"| {name} | {seconds:.1f} |")
    busy = used.ru_utime + used.ru_stime
    print(f"\n{busy:.0f} s of processor time on {cores} cores; load {load:.1f} at the start")
    return int(total > _BAR)


if __name__ == "__main__":
    sys.exit(main())
