"""The demo's verifier, and commands that run to their end, as real processes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from ullage.errors import FaultError

_TAIL_BYTES = 2000
_ANSWER_BYTES = 16 << 20


class VerifierProcess:
    """`ullage.demo.verifier`: requests go in one by one, answers come back; use it as `async with`."""

    def __init__(self, log_file: Path) -> None:
        self._log_file = log_file
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        with self._log_file.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "ullage.demo.verifier",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                limit=_ANSWER_BYTES,
            )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def audit(self, request: dict[str, str]) -> dict[str, Any]:
        """One audit. Raises FaultError when it cannot be done."""
        assert self._process is not None  # noqa: S101 - set on entry
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None and sink is not None  # noqa: S101, PT018 - both are pipes
        async with self._turn:
            sink.write(json.dumps(request).encode() + b"\n")
            await sink.drain()
            line = await source.readline()
        if not line:
            raise FaultError(f"The verifier ended before it had audited {request['log']}.")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise FaultError(f"The audit of {request['log']} failed: {found['error']}")
        return found


async def run_to_end(arguments: Sequence[str], log_file: Path, accepted: Sequence[int]) -> bytes:
    """Run one `ullage` command; returns its standard output. Raises FaultError on another exit code."""
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "ullage", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
        try:
            output, _ = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
    if process.returncode not in accepted:
        words = log_file.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace").strip()
        raise FaultError(f"`ullage {' '.join(arguments[:2])}` ended with {process.returncode}: {words}")
    return output
