"""The demo's main job: five servers behind a tap, real traffic, five audits.

Server, tap, clients and audit are processes of their own, as they would be for real. While one
server answers, the next one is loading and the one before is being audited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ullage.demo.processes import VerifierProcess, run_to_end
from ullage.demo.scenarios import Prompt, Scenario, load_prompts
from ullage.demo.traffic import Traffic, send
from ullage.errors import ExitCode
from ullage.programs import Program

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Folder:
    """Where the demo keeps what it makes."""

    root: Path

    @property
    def verifier_keys(self) -> Path:
        return self.root / "keys" / "verifier"

    @property
    def payload(self) -> Path:
        return self.root / "payload.bin"

    def tap_keys(self, name: str) -> Path:
        return self.root / "keys" / name

    def log(self, name: str) -> Path:
        return self.root / "logs" / name

    def record_keys(self, name: str) -> Path:
        """The keys of a log's records, as its tap hands them to the verifier."""
        return self.root / "keys" / f"{name}-records.json"

    def audit(self, name: str) -> Path:
        return self.root / "audits" / name

    def output(self, name: str, kind: str) -> Path:
        """The file that catches what a process says on standard error."""
        return self.root / "processes" / f"{name}-{kind}.txt"


@dataclass(frozen=True)
class Outcome:
    """One server's part of the story."""

    scenario: Scenario
    traffic: Traffic
    audit: dict[str, Any]
    audit_seconds: float


class Story:
    """Runs the scenarios in turn and collects their outcomes."""

    def __init__(self, folder: Folder, model: Path, progress: Progress) -> None:
        self._folder, self._model, self._progress = folder, model, progress
        self._prompts: tuple[Prompt, ...] = load_prompts()

    async def run(self, scenarios: tuple[Scenario, ...]) -> list[Outcome]:
        for part in ("keys", "logs", "audits", "processes"):
            (self._folder.root / part).mkdir(parents=True, exist_ok=True)
        await self._make_keys("verifier")
        audits: list[asyncio.Task[Outcome]] = []
        verifier = VerifierProcess(self._folder.output("verifier", "audits"))
        async with AsyncExitStack() as processes, verifier, asyncio.TaskGroup() as group:
            following = group.create_task(self._start(scenarios[0], processes))
            for index, scenario in enumerate(scenarios):
                server, tap = await following
                if index + 1 < len(scenarios):
                    following = group.create_task(self._start(scenarios[index + 1], processes))
                traffic = await self._send(scenario, tap.where)
                await tap.stop()
                await server.stop()
                audits.append(group.create_task(self._audit(scenario, traffic, verifier)))
        return [task.result() for task in audits]

    async def _make_keys(self, role: str) -> None:
        folder = self._folder.verifier_keys if role == "verifier" else self._folder.tap_keys(role)
        kind = "verifier" if role == "verifier" else "tap"
        arguments = ["keys", "init", str(folder), "--role", kind]
        await run_to_end(arguments, self._folder.output(role, "keys"), [ExitCode.PASS])

    async def _start(self, scenario: Scenario, processes: AsyncExitStack) -> tuple[Program, Program]:
        """The scenario's server, and the tap before it."""
        keys = asyncio.create_task(self._make_keys(scenario.name))
        command = ["serve"] if scenario.adversary is None else ["redteam", "serve", scenario.adversary]
        command += ["--model", str(self._model), "--listen", "127.0.0.1:0"]
        command += ["--dtype", scenario.declared_dtype]
        if scenario.adversary == "payload":
            command += ["--payload", str(self._folder.payload)]
        server = await processes.enter_async_context(
            Program(command, self._folder.output(scenario.name, "server"))
        )
        await keys
        arguments = [
            "tap", "--upstream", server.where, "--log", str(self._folder.log(scenario.name)),
            "--keys", str(self._folder.tap_keys(scenario.name)), "--listen", "127.0.0.1:0",
            "--model", str(self._model), "--dtype", scenario.declared_dtype,
            "--verifier-keys", str(self._folder.verifier_keys),
        ]  # fmt: skip
        tap = await processes.enter_async_context(
            Program(arguments, self._folder.output(scenario.name, "tap"))
        )
        return server, tap

    async def _send(self, scenario: Scenario, url: str) -> Traffic:
        shown = f"{scenario.name}: {{}} of {scenario.tokens:,} tokens through the tap"
        return await send(
            url, self._prompts[: scenario.prompts], scenario.tokens, max_tokens=scenario.max_tokens,
            on_progress=lambda tokens: self._progress(shown.format(f"{tokens:,}")),
        )  # fmt: skip

    async def _audit(self, scenario: Scenario, traffic: Traffic, verifier: VerifierProcess) -> Outcome:
        began = asyncio.get_running_loop().time()
        log, opened = self._folder.log(scenario.name), self._folder.record_keys(scenario.name)
        arguments = ["log", "open", str(log), "--all", "--keys", str(self._folder.tap_keys(scenario.name))]
        arguments += ["--out", str(opened)]
        await run_to_end(arguments, self._folder.output(scenario.name, "open"), [ExitCode.PASS])
        found = await verifier.audit(
            {
                "log": str(log),
                "key": str(self._folder.tap_keys(scenario.name) / "log.pub"),
                "keys": str(self._folder.verifier_keys),
                "record_keys": str(opened),
                "model": str(self._model),
                "out": str(self._folder.audit(scenario.name)),
            }
        )
        self._progress(f"{scenario.name}: audited")
        return Outcome(scenario, traffic, found, asyncio.get_running_loop().time() - began)
