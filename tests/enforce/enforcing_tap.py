"""A tap that enforces, as a process, and the one answer that it can give to the tests' prompt."""

from __future__ import annotations

import signal
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx

from tests.enforce.enforcer_process import EnforcerProcess
from tests.enforce.tap_process import start_tap
from tests.tap.scripted_upstream import ScriptedUpstream
from ullage.enforce.rederive import Rederived, rederive
from ullage.enforce.reference import ChunkedReference
from ullage.log.keys import Role, create_keys, load_verifier
from ullage.log.record import Record
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader
from ullage.sampling.parameters import SamplingParameters

PROMPT = list(range(40, 63))
LENGTH = 50


class Tap:
    """A tap with its log and keys in `folder`; use as a context manager."""

    def __init__(
        self, folder: Path, upstream: ScriptedUpstream, enforcer: EnforcerProcess, model: Path, **options: Any
    ) -> None:
        self.folder = folder
        create_keys(folder / "keys", Role.TAP)
        self.process = start_tap(
            upstream=upstream.url, log=str(folder / "log"), keys=str(folder / "keys"), model=str(model),
            enforce=str(enforcer.path), **options,
        )  # fmt: skip

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise AssertionError(self.process.communicate()[1])
        self.url = line.split()[-1]
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        errors = self.process.communicate(timeout=60)[1].splitlines()
        self.told = [line for line in errors if not line.startswith("ullage tap: alarm:")]  # of late slots
        if kind is None:
            assert self.process.returncode == 0
            assert [line for line in self.told if "the enforcer is" not in line] == []

    def ask(self, **body: Any) -> httpx.Response:
        fields = {"prompt": PROMPT, "max_tokens": LENGTH, "temperature": 0.9, **body}
        return httpx.post(f"{self.url}/v1/completions", json=fields, timeout=120)

    def reader(self) -> LogReader:
        keys = self.folder / "keys"
        return LogReader.open(self.folder / "log", load_verifier(keys / "log.pub"), load_opener(keys))

    def records(self) -> list[Record]:
        return sorted(self.reader().records(include_uncovered=True), key=lambda record: record.counter)


@cache
def known(reference: ChunkedReference, seed: int) -> Rederived:
    parameters = SamplingParameters(0.9)
    return rederive(
        reference, "murmur3-gumbel/f64", PROMPT, seed=seed, parameters=parameters, max_tokens=LENGTH
    )
