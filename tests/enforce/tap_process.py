"""`ullage tap --enforce` as a child process: `python -m tests.enforce.tap_process JSON` is the child."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ullage.errors import UllageError


def start_tap(**options: Any) -> subprocess.Popen[str]:
    """A tap; its first line of output says where it listens."""
    command = [sys.executable, "-m", "tests.enforce.tap_process", json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def main() -> int:
    from ullage.cli.tap import tap

    options = json.loads(sys.argv[1])
    paths: dict[str, Any] = {name: Path(options.pop(name)) for name in ("log", "keys", "model", "enforce")}
    try:
        tap(listen="127.0.0.1:0", **paths, **options)
    except UllageError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
