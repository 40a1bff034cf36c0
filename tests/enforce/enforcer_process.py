"""`ullage enforcer` as a child process: `python -m tests.enforce.enforcer_process JSON` is the child."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ullage.errors import UllageError
from ullage.model import instruction_set


class EnforcerProcess:
    """Starts an enforcer and waits until it listens; use as a context manager."""

    def __init__(self, path: Path, model: Path, **options: Any) -> None:
        defaults = {"max_batch": 4, "threads": 1, "max_requests": 6, "memory_positions": 1024}
        self.path = path
        self._options = {**defaults, "socket": str(path), "model": str(model), **options}
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.enforce.enforcer_process", json.dumps(self._options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != f"listening on unix:{self.path}\n":
            raise AssertionError(f"the enforcer did not start: {self.process.communicate()[1]}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.communicate()

    def stop(self) -> tuple[int, str]:
        """Ask it to end; returns its exit code and what it wrote to standard error."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def main() -> int:
    from ullage.cli.enforcer import enforcer

    options = json.loads(sys.argv[1])
    try:
        enforcer(socket=Path(options.pop("socket")), model=Path(options.pop("model")), **options)
    except UllageError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    instruction_set.pin()
    sys.exit(main())
