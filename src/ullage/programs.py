"""Programs as real processes: started, waited for until they say where they listen, never left behind.

The demo and the red team play with whole servers and taps, so that nothing is shared but what they say.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from ullage.errors import FaultError

_LISTENING: Final = re.compile(r"listening on (\S+)")
_START_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 30.0
_TAIL_BYTES: Final = 2000


class Program:
    """`python -m MODULE ARGUMENTS` that prints `listening on WHERE`; use it as `async with`.

    `where` is that WHERE. `niceness` above 0 lets other processes go first. `log_file` gets its standard
    error, after what is there already. `stop` asks it to end; leaving the block does, too.
    """

    def __init__(
        self, arguments: Sequence[str], log_file: Path, module: str = "ullage", niceness: int = 0
    ) -> None:
        self._what = f"{module} {arguments[0]}"
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._niceness = niceness
        self._log_file = log_file
        self._process: asyncio.subprocess.Process | None = None
        self.where = ""

    async def __aenter__(self) -> Self:
        try:
            with self._log_file.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                    stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"},
                )  # fmt: skip
            if self._niceness:
                os.setpriority(os.PRIO_PROCESS, self._process.pid, self._niceness)
            self.where = await asyncio.wait_for(self._until_listening(), _START_SECONDS)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def complaints(self) -> str:
        """What it wrote to standard error."""
        return self._log_file.read_text("utf-8", "replace")

    async def _until_listening(self) -> str:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018
        async for line in self._process.stdout:
            if found := _LISTENING.search(line.decode("utf-8", "replace")):
                return found.group(1)
        last = self.complaints[-_TAIL_BYTES:].strip().splitlines() or ["it said nothing."]
        raise FaultError(f"`{self._what}` did not start: {last[-1]}")

    async def stop(self) -> None:
        """Ask it to end, and insist after a while. Waits until it is gone."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
