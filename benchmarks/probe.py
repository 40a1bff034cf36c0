"""Tokens until a provider is found out, beside DiFR's mean clipped margin on the same tokens. JSON on stdout.

    python benchmarks/probe.py collect DIR    ask every provider (processes of their own), keep the answers
    python benchmarks/probe.py judge DIR      score them, and replay them in many orders

The declared configuration is the built-in model in bfloat16, seeded sampling at temperature 0.7. `collect`
goes on where it was interrupted. DiFR's method (Token-DiFR: mean of margins, clipped at the honest 99.9 %
quantile, above the honest quantile for that many tokens) is given its best number of tokens in hindsight,
and beside that as a sequential test, with thresholds for which at most the same share of honest streams is
ever accused. `--tokens` is per deviating provider; honest ones and int8 are asked for more.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ullage.model.builtin import builtin_path
from ullage.model.tokenizer import ModelTokenizer
from ullage.probe.answers import Answer
from ullage.probe.budget import Budget, Prices, Purse
from ullage.probe.client import Client
from ullage.probe.configurations import Configuration, Weights, usual_configurations
from ullage.probe.evidence import Bet, Evidence, bets_of
from ullage.probe.journal import Journal
from ullage.probe.noise import ProbeNoise, fit_noise, guessed_noise
from ullage.probe.questions import Plan, Question, own_prompts
from ullage.probe.scoring import Scorer
from ullage.probe.views import SeededView, View
from ullage.programs import Program
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile

Array = NDArray[np.float64]

ALPHA = 0.01
ORDERS = 200
MAX_TOKENS = 48
PARALLEL = 12
PROFILE = "murmur3-gumbel/f64"
# name → (server's command, proxy before it, times the tokens)
PROVIDERS: dict[str, tuple[tuple[str, ...], str | None, int]] = {
    "honest bfloat16, for the fit": (("serve",), None, 4),
    "honest bfloat16": (("serve",), None, 4),
    "full precision": (("serve", "--dtype", "float32"), None, 2),
    "int8": (("redteam", "serve", "int8"), None, 6),
    "int4": (("redteam", "serve", "int4"), None, 1),
    "fp8 KV": (("redteam", "serve", "fp8-kv"), None, 1),
    "wrong template": (("serve",), "template", 1),
    "wrong system prompt": (("serve",), "system", 1),
    "temperature ignored": (("serve",), "temperature", 1),
}
FIT = "honest bfloat16, for the fit"


def note(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def plan_for(name: str) -> Plan:
    parameters = SamplingParameters(temperature=0.7)
    return Plan(own_prompts("chat"), parameters, MAX_TOKENS, f"benchmark {name}")


# --- collect -------------------------------------------------------------------------------------------


async def collect(root: Path, tokens: int) -> None:
    for name, (command, proxy, times) in PROVIDERS.items():
        note(f"{name} …")
        async with AsyncExitStack() as stack:
            dtype = () if "--dtype" in command else ("--dtype", "bfloat16")
            arguments = [*command, *dtype, "--listen", "127.0.0.1:0"]
            server = await stack.enter_async_context(Program(arguments, root / "server.txt"))
            url = server.where
            if proxy is not None:
                arguments = ["redteam", "provider", proxy, "--upstream", url, "--listen", "127.0.0.1:0"]
                url = (await stack.enter_async_context(Program(arguments, root / "proxy.txt"))).where
            await asyncio.to_thread(_ask, url, root / name.replace(" ", "-"), plan_for(name), tokens * times)


def _ask(url: str, folder: Path, plan: Plan, tokens: int) -> None:
    tokenizer = ModelTokenizer.load(builtin_path())
    with (
        Client(url) as client,
        Journal.open(folder, {"plan": plan.digest()}) as journal,
        ThreadPoolExecutor(PARALLEL) as pool,
    ):
        kept = list(journal.answers())
        purse = Purse(Budget(None), Prices())
        done = sum(len(answer.token_ids or ()) for _, answer in kept)
        questions = plan.questions(tokenizer, len(kept))
        while done < tokens:
            asked = [next(questions) for _ in range(PARALLEL)]
            for question, answer in zip(asked, pool.map(client.ask, asked), strict=True):
                if answer is None:
                    raise SystemExit(f"{url} does not answer")
                purse.pay(question, answer)
                journal.append(question.number, answer)
                done += len(answer.token_ids or ())


# --- judge ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """A provider's answers, scored once: bets on each, and margins."""

    bets: list[list[Bet]]
    trusting: list[list[Bet]]
    """With the noise taken at its word."""
    margins: list[Array]
    mismatches: int
    best: str

    @property
    def tokens(self) -> int:
        return sum(map(len, self.margins))


def answered(root: Path, name: str) -> list[tuple[Question, Answer]]:
    plan, tokenizer = plan_for(name), ModelTokenizer.load(builtin_path())
    with Journal.open(root / name.replace(" ", "-"), {"plan": plan.digest()}) as journal:
        return [(next(plan.questions(tokenizer, at)), answer) for at, answer in journal.answers()]


def fitted(scorer: Scorer, found: Sequence[tuple[Question, Answer]], size: int) -> ProbeNoise:
    near, chosen, sessions = [], [], []
    for question, answer in found:
        output = answer.token_ids or ()
        if output:
            winner, candidates, _ = scorer.candidates(question, output)
            near.append(candidates)
            chosen.append(candidates.chosen(winner, np.asarray(output, np.int64)))
            digest = hashlib.sha256(question.prompt.text.encode()).digest()
            sessions.append(digest[0] % 32)
    return fit_noise(near, chosen, sessions, size, "honest bfloat16 server")


def scored(root: Path, name: str, noise: ProbeNoise, most: int) -> Stream:
    """In a process of its own."""
    from ullage.probe.explanation import Likelihoods

    configurations, deviations = configured()
    profile = get_profile(PROFILE)
    scorer = Scorer(Weights(builtin_path(), "bfloat16"), configurations, profile, noise)
    likelihoods = Likelihoods(tuple(one.name for one in configurations))
    bets, trusting, margins, mismatches, done = [], [], [], 0, 0
    for question, answer in answered(root, name):
        one = scorer.score(question, answer)
        if one is None or done >= most:
            continue
        bets.append(bets_of(one.declared, one.views, one.claimed, deviations))
        views = {other: replace(view, noise=noise.trusted()) for other, view in seeded(one.views).items()}
        trusting.append(bets_of(views["declared"], {**one.views, **views}, one.claimed, deviations))
        margins.append(one.declared.margin)
        mismatches += one.mismatches
        done += len(one.claimed)
        likelihoods.add(one)
    note(f"{name}: {done} tokens, {mismatches} mismatches")
    return Stream(bets, trusting, margins, mismatches, likelihoods.explain().best)


def seeded(views: Mapping[str, View]) -> dict[str, SeededView]:
    return {name: view for name, view in views.items() if isinstance(view, SeededView)}


def configured() -> tuple[tuple[Configuration, ...], tuple[str, ...]]:
    """All configurations, and the names of those that deviate."""
    found = usual_configurations("bfloat16", plan_for("").parameters, chat=True)
    return found, tuple(one.name for one in found if not one.honest)


def orders(stream: Stream, seed: int) -> list[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    return [generator.permutation(len(stream.margins)) for _ in range(ORDERS)]


def our_tokens(bets: list[list[Bet]], stream: Stream, names: tuple[str, ...]) -> Array:
    """Tokens to detection for each order, infinite where it was not found out."""
    found = []
    for order in orders(stream, 1):
        evidence = Evidence(ALPHA, names)
        for at in order:
            evidence.advance(bets[at])
            if evidence.crossed_at:
                break
        found.append(float(evidence.crossed_at or np.inf))
    return np.array(found)


def running_means(stream: Stream, clip: float, length: int, seed: int = 1) -> Array:
    """DiFR's score after each token, (orders, length)."""
    rows = []
    for order in orders(stream, seed):
        line = np.concatenate([np.minimum(stream.margins[at], clip) for at in order])[:length]
        rows.append(np.cumsum(line) / np.arange(1, len(line) + 1))
    return np.array(rows)


def fixed_size(honest: Array, cheat: Array, power: float) -> float:
    """The fewest tokens after which at least `power` of the orders lie above the honest quantile of the same
    number of tokens: DiFR with its number of tokens chosen in hindsight."""
    length = min(honest.shape[1], cheat.shape[1])
    limit = np.quantile(honest[:, :length], 1 - ALPHA, axis=0, method="higher")
    found = (cheat[:, :length] > limit).mean(axis=0) >= power
    return float(found.argmax() + 1) if found.any() else float("inf")


def sequential(honest: Array, cheat: Array) -> Array:
    """Tokens to detection for each order if DiFR's score is looked at after every token: its distance from
    the honest mean in honest standard deviations, above the honest quantile of the largest one."""
    length = min(honest.shape[1], cheat.shape[1])
    mean, spread = honest[:, :length].mean(axis=0), honest[:, :length].std(axis=0) + 1e-12
    worst = ((honest[:, :length] - mean) / spread).max(axis=1)
    limit = np.quantile(worst, 1 - ALPHA, method="higher")
    above = (cheat[:, :length] - mean) / spread > limit
    return np.where(above.any(axis=1), above.argmax(axis=1) + 1.0, np.inf)


def quantile(values: Array, share: float) -> float | None:
    found = float(np.quantile(values, share, method="higher"))
    return found if np.isfinite(found) else None


def judge(root: Path, most: int, workers: int) -> dict[str, Any]:
    weights, (configurations, names) = Weights(builtin_path(), "bfloat16"), configured()
    size = weights.declared.vocabulary_size
    guess = guessed_noise("bfloat16", size)
    fit = answered(root, FIT)
    noise = fitted(Scorer(weights, configurations, get_profile(PROFILE), guess, reach=1.0), fit, size)
    note(noise.source)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {
            name: pool.submit(scored, root, name, noise, most * min(times, 3))
            for name, (_, _, times) in PROVIDERS.items()
            if name != FIT
        }
        streams = {name: future.result() for name, future in futures.items()}
    honest = streams["honest bfloat16"]
    clip = max(float(np.quantile(np.concatenate(honest.margins), 0.999)), 1e-6)
    base = running_means(honest, clip, honest.tokens, seed=2)
    rows = {}
    for name, stream in streams.items():
        rows[name] = row(stream, base, clip, names)
        note(f"{name}: {rows[name]}")
    return {"alpha": ALPHA, "orders": ORDERS, "clip": clip, "noise": noise.to_dict(), "providers": rows}


def row(stream: Stream, base: Array, clip: float, names: tuple[str, ...]) -> dict[str, Any]:
    """Median and 95 % of the tokens to detection, null where fewer orders than that were found out."""
    cautious = our_tokens(stream.bets, stream, names)
    trusting = our_tokens(stream.trusting, stream, names)
    theirs = running_means(stream, clip, stream.tokens)
    looked = sequential(base, theirs)
    return {
        "tokens": stream.tokens,
        "mismatch_rate": stream.mismatches / stream.tokens,
        "closest": stream.best,
        "probe": [quantile(cautious, 0.5), quantile(cautious, 0.95)],
        "probe_trusting": [quantile(trusting, 0.5), quantile(trusting, 0.95)],
        "difr_hindsight": [_finite(fixed_size(base, theirs, share)) for share in (0.5, 0.95)],
        "difr_sequential": [quantile(looked, 0.5), quantile(looked, 0.95)],
        "accused": [float(np.isfinite(one).mean()) for one in (cautious, trusting, looked)],
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("collect", "judge"))
    parser.add_argument("root", type=Path)
    parser.add_argument("--tokens", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.root.mkdir(parents=True, exist_ok=True)
    if options.step == "collect":
        asyncio.run(collect(options.root, options.tokens))
    else:
        print(json.dumps(judge(options.root, options.tokens, options.workers), indent=1))


if __name__ == "__main__":
    main()
