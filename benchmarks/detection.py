"""How often the verdict is right: honest servers over many runs, cheats from few tokens. JSON on stdout.

    python benchmarks/detection.py honest-float32   one log of at least 100,000 tokens
    python benchmarks/detection.py honest-runs      100 runs of an honest bfloat16 server, each judged
    python benchmarks/detection.py cheats           int4, unseeded, payload and int8, judged on 2,000 tokens

Servers and taps are processes of their own, traffic goes through the openai client, and the audits read
nothing but the logs. Minutes each on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ullage.audit.bounds.statistics import clopper_pearson
from ullage.audit.run import AuditRequest, audit_log
from ullage.audit.verdict import decide, limit_for
from ullage.demo.evidence import AuditEvidence
from ullage.demo.processes import run_to_end
from ullage.demo.scenarios import load_prompts
from ullage.demo.traffic import send
from ullage.model.builtin import builtin_path
from ullage.programs import Program

TOKENS_A_WINDOW = 2_000
WINDOWS = 1_000
CHEATS = ("int4", "unseeded", "payload", "int8")


def note(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Bench:
    """A folder of keys and logs, and the processes that fill it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def keys(self, name: str, role: str) -> Path:
        folder = self.root / f"keys-{name}"
        await run_to_end(["keys", "init", str(folder), "--role", role], self.root / f"{name}.keys.txt", [0])
        return folder

    async def server(self, stack: AsyncExitStack, adversary: str | None, dtype: str) -> str:
        command = ["serve"] if adversary is None else ["redteam", "serve", adversary]
        command += ["--model", str(builtin_path()), "--listen", "127.0.0.1:0", "--dtype", dtype]
        if adversary == "payload":
            (self.root / "payload.bin").write_bytes(bytes(range(256)) * 64)
            command += ["--payload", str(self.root / "payload.bin")]
        process = Program(command, self.root / f"{adversary or dtype}.server.txt")
        return (await stack.enter_async_context(process)).where

    async def log(self, name: str, upstream: str, dtype: str, tokens: int, prompts: slice) -> Path:
        """One tap, one log, at least `tokens` tokens of real traffic."""
        keys, log = await self.keys(name, "tap"), self.root / f"log-{name}"
        arguments = [
            "tap", "--upstream", upstream, "--log", str(log), "--keys", str(keys), "--dtype", dtype,
            "--listen", "127.0.0.1:0", "--model", str(builtin_path()),
        ]  # fmt: skip
        async with Program(arguments, self.root / f"{name}.tap.txt") as tap:
            await send(tap.where, load_prompts()[prompts], tokens)
        return log

    def evidence(self, name: str, log: Path) -> tuple[str, AuditEvidence]:
        out = self.root / f"audit-{name}"
        key, keys = self.root / f"keys-{name}" / "log.pub", self.root / "keys-verifier"
        result = audit_log(AuditRequest(log=log, model=builtin_path(), log_key=key, keys=keys, out=out))
        return result.verdict.outcome.value, AuditEvidence.read(out)


def rate(evidence: AuditEvidence) -> dict[str, Any]:
    found = clopper_pearson(int(evidence.mismatch.sum()), len(evidence.mismatch), 0.95)
    finite = evidence.margin[np.isfinite(evidence.margin)]
    return {
        "tokens": found.tokens, "mismatches": found.mismatches, "rate": found.value,
        "interval_95": [found.low, found.high], "outside_filters": int(np.isinf(evidence.margin).sum()),
        "largest_finite_margin": float(finite.max(initial=0.0)),
    }  # fmt: skip


def windows_failed(evidence: AuditEvidence, generator: np.random.Generator) -> dict[str, Any]:
    """Judge random sets of whole records of at most `TOKENS_A_WINDOW` tokens, as an audit would."""
    _, starts, lengths = np.unique(evidence.record, return_index=True, return_counts=True)
    mismatches = np.add.reduceat(evidence.mismatch.astype(np.int64), starts)
    verdicts: dict[str, int] = {}
    for _ in range(WINDOWS):
        order = generator.permutation(len(lengths))
        taken = order[np.cumsum(lengths[order]) <= TOKENS_A_WINDOW]
        verdict = decide(int(mismatches[taken].sum()), int(lengths[taken].sum()), limit_for("bfloat16"))
        outcome = verdict.outcome.value
        verdicts[outcome] = verdicts.get(outcome, 0) + 1
    return {"windows": WINDOWS, "tokens_a_window_at_most": TOKENS_A_WINDOW, "verdicts": verdicts}


async def honest_float32(bench: Bench, tokens: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        await bench.keys("verifier", "verifier")
        upstream = await bench.server(stack, None, "float32")
        log = await bench.log("float32", upstream, "float32", tokens, slice(None))
    verdict, evidence = bench.evidence("float32", log)
    return {"verdict": verdict} | rate(evidence)


async def honest_runs(bench: Bench, runs: int) -> dict[str, Any]:
    verdicts: dict[str, int] = {}
    tokens, mismatches, rates = 0, 0, []
    async with AsyncExitStack() as stack:
        await bench.keys("verifier", "verifier")
        upstream = await bench.server(stack, None, "bfloat16")
        for run in range(runs):
            name, first = f"run{run}", run * 7 % 120
            log = await bench.log(name, upstream, "bfloat16", TOKENS_A_WINDOW, slice(first, first + 22))
            verdict, evidence = await asyncio.to_thread(bench.evidence, name, log)
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
            tokens, mismatches = tokens + len(evidence.mismatch), mismatches + int(evidence.mismatch.sum())
            rates.append(float(evidence.mismatch.mean()))
            note(f"run {run + 1} of {runs}: {verdict}, {100 * rates[-1]:.2f} %")
    found = clopper_pearson(mismatches, tokens, 0.95)
    return {
        "runs": runs, "verdicts": verdicts, "tokens": tokens, "mismatches": mismatches, "rate": found.value,
        "interval_95": [found.low, found.high], "run_rates_min_max": [min(rates), max(rates)],
    }  # fmt: skip


async def cheats(bench: Bench, tokens: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    await bench.keys("verifier", "verifier")
    generator = np.random.default_rng(0)
    for name in (None, *CHEATS):
        shown = name or "honest-bfloat16"
        async with AsyncExitStack() as stack:
            upstream = await bench.server(stack, name, "bfloat16")
            log = await bench.log(shown, upstream, "bfloat16", tokens, slice(None))
        verdict, evidence = bench.evidence(shown, log)
        results[shown] = {"verdict": verdict} | rate(evidence) | windows_failed(evidence, generator)
        note(f"{shown}: {results[shown]}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("honest-float32", "honest-runs", "cheats"))
    parser.add_argument("--tokens", type=int, default=0, help="tokens of a log")
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        if options.part == "honest-float32":
            result = asyncio.run(honest_float32(bench, options.tokens or 101_000))
        elif options.part == "honest-runs":
            result = asyncio.run(honest_runs(bench, options.runs))
        else:
            result = asyncio.run(cheats(bench, options.tokens or 12_000))
    print(json.dumps({options.part: result}, indent=1))


if __name__ == "__main__":
    main()
