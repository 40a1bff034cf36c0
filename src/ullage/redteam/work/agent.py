"""A cheating agent as processes of its own: `python -m ullage.redteam.work.agent NAME --slots N`."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

from ullage.errors import FaultError, UllageError
from ullage.redteam.work.registry import HONEST, WORK_ADVERSARIES, prover_class
from ullage.work.agent import run_agent
from ullage.work.stream import parse_address


@contextlib.contextmanager
def running_agent(name: str, slots: int) -> Iterator[tuple[str, int]]:
    """Start an agent, give its address, and end it. It ends with us, however we end."""
    command = [sys.executable, "-P", "-m", "ullage.redteam.work.agent", name, "--slots", str(slots)]
    with subprocess.Popen(
        [*command, "--until-eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise FaultError(f"The agent '{name}' did not start.")
            yield parse_address(line.rpartition(" ")[2].strip())
        finally:
            process.terminate()


def _announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[HONEST, *(adversary.name for adversary in WORK_ADVERSARIES)])
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    if arguments.until_eof:
        threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        # Not in the idle class: what a cheater hides must not depend on what else the machine does.
        run_agent(
            "127.0.0.1",
            arguments.port,
            arguments.slots,
            prover_class(arguments.name),
            _announce,
            idle_class=False,
        )
    except UllageError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


def _end_with_input() -> None:
    while sys.stdin.read(4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
