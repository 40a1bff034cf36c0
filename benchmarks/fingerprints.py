"""Detection curves: tokens' margins against fingerprints of hidden states, on the same traffic. JSON on
stdout.

    python benchmarks/fingerprints.py score DIR [--quick] [--other FOLDER]   run the servers, score every
    token python benchmarks/fingerprints.py curves DIR [--plot FILE.svg]           areas under the curve,
    and the plot

Every server is the embedded server's engine, sampling at temperature 1, and keeps its final hidden states.
For each declared precision the reference passes once over all answers. Scores of a window of n tokens:

* mismatches: our e-process over mismatches (noise fitted to other answers of an honest server)
* DiFR margin: Token-DiFR's mean of margins, clipped at the 99.9 % quantile of those other honest answers
* fingerprint, 1 and 4 bytes: our e-process over committed states (tolerance from those other answers)
* DiFR activations: mean distance of 2 coordinates of a fixed Gaussian projection in bfloat16: 4 bytes
* TOPLOC-like: mean error of a mantissa over the 4 n largest activations of at most 32 tokens: 8 bytes

The figure is DiFR's: the area under the ROC curve at false alarms below 1 %, scaled so that chance is 0.5.
Windows are runs of tokens of random answers; they overlap, so a long window is not many independent ones.
`--other`: a folder with other weights of the same shape; without it that row is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ullage.fingerprint.commitment import transcript_digest
from ullage.fingerprint.evidence import Evidence
from ullage.fingerprint.projection import differences, fingerprint
from ullage.fingerprint.tolerance import Tolerance, fit_tolerance
from ullage.fingerprint.toploc import compare, prove
from ullage.model.builtin import builtin_path
from ullage.model.loading import Precision, load_causal_lm
from ullage.model.reference import Reference
from ullage.model.states import StateCapture
from ullage.probe.evidence import alarm_bets
from ullage.probe.noise import WIDTH, ProbeNoise, fit_noise, guessed_noise
from ullage.probe.questions import Plan, Question, own_prompts
from ullage.probe.views import SeededView
from ullage.redteam.servers.quantised import GROUP, quantise_model
from ullage.redteam.tokens.model_swaps import WarmerChooser, add_low_rank
from ullage.sampling.address import NoiseAddress
from ullage.sampling.candidates import Candidates, score_with_candidates
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile
from ullage.server.chooser import SeededChooser, TokenChooser
from ullage.server.engine import Engine
from ullage.server.rows import Failure, Limits, Output, Row

Array = NDArray[np.float64]

PROFILE = "murmur3-gumbel/f64"
PARAMETERS = SamplingParameters(temperature=1.0)
MAX_TOKENS = 48
FALSE_ALARMS = 0.01
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RUNS = (1, 2, 4, 8, 16, 32)  # tokens that one TOPLOC-like proof covers
WINDOWS = 1000
CALIBRATION, HONEST = "honest, to calibrate", "honest"
DTYPES: tuple[Precision, ...] = ("float32", "bfloat16")
METHODS = {
    "mismatches": "mismatch e-process (0 bytes)",
    "margin": "DiFR margin (0 bytes)",
    "print1": "fingerprint, 1 byte",
    "print4": "fingerprint, 4 bytes",
    "difr": "DiFR activations (4 bytes)",
    "toploc": "TOPLOC-like (8 bytes)",
}


def note(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


# --- servers -------------------------------------------------------------------------------------------


class KeepingChooser:
    """Keeps the states (H,) of every row beside choosing."""

    def __init__(self, inner: TokenChooser, model: Any) -> None:
        self._inner, self._capture = inner, StateCapture(model)
        self.states: dict[str, list[NDArray[np.float32]]] = {}

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> Sequence[int]:
        for row, state in zip(rows, self._capture.take(), strict=True):
            self.states.setdefault(row.request_id, []).append(state.copy())
        return self._inner.choose(logits, rows)

    def finished(self, row: Row) -> None:
        self._inner.finished(row)


class OtherSeedChooser:
    """Draws with another seed than the one it was given."""

    def __init__(self) -> None:
        self._honest = SeededChooser()

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> Sequence[int]:
        return self._honest.choose(logits, [replace(row, seed=row.seed ^ 1) for row in rows])

    def finished(self, row: Row) -> None:
        """Nothing is kept of a row."""


@dataclass(frozen=True)
class Provider:
    """A server: precision, a change of its weights, its sampler, another folder, times the tokens."""

    dtype: Precision
    change: Callable[[Any], object] = lambda _: None
    chooser: Callable[[], TokenChooser] = SeededChooser
    folder: Path | None = None
    times: int = 1


def providers(dtype: Precision, other: Path | None) -> dict[str, Provider]:
    second: Precision = "bfloat16" if dtype == "float32" else "float32"
    found = {
        CALIBRATION: Provider(dtype, times=2),
        HONEST: Provider(dtype, times=2),
        f"{second} arithmetic": Provider(second),
        "int8 weights": Provider(dtype, lambda model: quantise_model(model, 8, GROUP)),
        "int4 weights": Provider(dtype, lambda model: quantise_model(model, 4, GROUP)),
        "low-rank change, 2 %": Provider(dtype, add_low_rank),
        "temperature 1.1": Provider(dtype, chooser=WarmerChooser),
        "another seed": Provider(dtype, chooser=OtherSeedChooser),
    }
    return found if other is None else found | {"other weights": Provider(dtype, folder=other)}


@dataclass(frozen=True)
class Answered:
    question: Question
    output: tuple[int, ...]
    states: NDArray[np.float32]


def serve(provider: Provider, reference: Reference, key: str, answers: int) -> list[Answered]:
    """Answers to our prompts, from the embedded server's engine."""
    model = load_causal_lm(provider.folder or builtin_path(), provider.dtype)
    provider.change(model)
    chooser = KeepingChooser(provider.chooser(), model)
    engine = Engine(model, reference.tokenizer, chooser, max_batch=32, threads=1)
    plan = Plan(own_prompts("chat"), PARAMETERS, MAX_TOKENS, key)
    questions = list(islice(plan.questions(reference.tokenizer), answers))
    ended = threading.Semaphore(0)
    failures: list[str] = []

    def sink(output: Output | Failure) -> None:
        if isinstance(output, Failure):
            failures.append(output.message)
        if isinstance(output, Failure) or output.finish_reason:
            ended.release()

    rows = [Row(str(one.number), one.seed, list(one.prompt_ids), PARAMETERS) for one in questions]
    engine.start()
    for row, question in zip(rows, questions, strict=True):
        engine.submit(row, Limits(question.max_tokens), sink)
    for _ in rows:
        ended.acquire()
    engine.stop()
    assert not failures, failures[0]
    return [
        Answered(question, tuple(row.output_ids), np.stack(chooser.states[row.request_id]))
        for question, row in zip(questions, rows, strict=True)
    ]


# --- scores --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """An answer as the reference sees it."""

    answered: Answered
    claimed: NDArray[np.int64]
    winner: NDArray[np.int64]
    near: Candidates
    margin: Array
    own: NDArray[np.float32]

    @property
    def distances(self) -> Array:
        """Squared, (T,)."""
        return np.asarray(np.sum((self.answered.states.astype(np.float64) - self.own) ** 2, axis=1))


def seen_by(reference: Reference, found: Sequence[Answered], reach: float) -> Iterator[Seen]:
    profile = get_profile(PROFILE)
    for one in found:
        prompt, claimed = one.question.prompt_ids, np.asarray(one.output, np.int64)
        sequence = [(*prompt, *one.output)]
        with StateCapture(reference.model) as capture:  # the head's input of the same pass
            (logits,) = reference.logits(sequence, [len(prompt)])
            own = capture.take()
        address = NoiseAddress.of_response(one.question.seed, len(prompt), len(claimed))
        scores, near = score_with_candidates(
            profile, logits, claimed, PARAMETERS, address, reach=reach, width=WIDTH
        )
        yield Seen(one, claimed, scores.reference, near, scores.margin, own)


@dataclass(frozen=True)
class Calibrated:
    """What both sides' tests were told of honest servers."""

    noise: ProbeNoise
    tolerance: Tolerance
    clip: float

    @classmethod
    def of(cls, reference: Reference, honest: Sequence[Seen]) -> Calibrated:
        noise = fit_noise(
            [one.near for one in honest], [one.near.chosen(one.winner, one.claimed) for one in honest],
            [at % 16 for at in range(len(honest))], reference.vocabulary_size, "honest answers",
        )  # fmt: skip
        tolerance = fit_tolerance(
            [one.distances for one in honest], width=honest[0].own.shape[1], dtype=reference.dtype,
            model=reference.identity.digest,
        )  # fmt: skip
        clip = max(float(np.quantile(np.concatenate([one.margin for one in honest]), 0.999)), 1e-6)
        return cls(noise.trusted(), tolerance, clip)


def scores_of(calibrated: Calibrated, found: Sequence[Seen]) -> list[dict[str, Any]]:
    """For each answer the tokens' parts of every score."""
    generator = np.random.default_rng(42)
    width = found[0].own.shape[1]
    projection = generator.standard_normal((width, 2)) / np.sqrt(2)
    return [_scores(calibrated, one, projection) for one in found]


def _scores(calibrated: Calibrated, one: Seen, projection: Array) -> dict[str, Any]:
    tolerance = calibrated.tolerance
    view = SeededView.of(one.winner, one.near, one.margin, calibrated.noise)
    bets = alarm_bets(view, one.claimed)
    scored: dict[str, Any] = {
        "mismatch": (one.claimed != one.winner).tolist(),
        "margin": np.minimum(one.margin, calibrated.clip).tolist(),
        "bets": np.stack([steps for _, steps in bets], axis=1).tolist(),
        "weights": [weight for weight, _ in bets],
        "distance": np.sqrt(one.distances).tolist(),
    }
    question, theirs = one.answered.question, one.answered.states
    digest = transcript_digest(question.seed, question.prompt_ids, one.answered.output)
    seed = digest[::-1]  # drawn by nobody who could choose states: a fixed one makes the run repeatable
    for coordinates in (1, 4):
        data = fingerprint(theirs, seed, digest, coordinates=coordinates, step=tolerance.step)
        apart = differences(data, one.own, seed, digest, step=tolerance.step)
        evidence = Evidence(tolerance.in_steps(), coordinates, FALSE_ALARMS)
        scored[f"print{coordinates}"] = evidence.log_factors(apart).tolist()
    said, own = (_bfloat16(states @ projection) for states in (theirs, one.own))
    scored["difr"] = np.linalg.norm(said - own, axis=1).tolist()
    scored["toploc"] = {
        str(run): [
            compare(prove(theirs[at : at + run], 4 * run), one.own[at : at + run]).score
            for at in range(0, len(theirs) - run + 1, run)
        ]
        for run in RUNS
    }
    return scored


def _bfloat16(values: Array) -> Array:
    rounded: Array = torch.from_numpy(values).to(torch.bfloat16).double().numpy()
    return rounded


def score(root: Path, answers: int, other: Path | None) -> None:
    for dtype in DTYPES:
        reference = Reference.load(builtin_path(), dtype)
        calibrated: Calibrated | None = None
        for name, provider in providers(dtype, other).items():
            path = root / f"{dtype}-{name.replace(' ', '-')}.json"
            if path.exists() and calibrated is not None:
                continue
            wanted = max(
                answers * provider.times, 80 if calibrated is None else 0
            )  # a fit needs 2,000 tokens
            found = serve(provider, reference, f"{dtype} {name}", wanted)
            guess = guessed_noise(dtype, reference.vocabulary_size)
            reach = 1.0 if calibrated is None else calibrated.noise.model.curve.cutoff
            seen = list(seen_by(reference, found, max(reach, guess.model.curve.cutoff)))
            if calibrated is None:
                calibrated = Calibrated.of(reference, seen)
                note(f"{dtype}: {calibrated.noise.source}; tolerance {calibrated.tolerance.rms:.3g}")
            scored = scores_of(calibrated, seen)
            path.write_text(json.dumps({"name": name, "answers": scored}), "utf-8")
            tokens = sum(len(one["margin"]) for one in scored)
            wrong = sum(sum(one["mismatch"]) for one in scored)
            apart = float(np.sqrt(np.mean([d * d for one in scored for d in one["distance"]])))
            note(f"{dtype}, {name}: {tokens} tokens, {wrong} mismatches, distance {apart:.3g}")


# --- curves --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """One server's answers, and the score of any window of their tokens."""

    answers: list[dict[str, Any]]

    def windows(self, size: int, generator: np.random.Generator) -> dict[str, Array]:
        """Scores (WINDOWS,) of each method for random windows of `size` tokens."""
        lengths = np.array([len(one["margin"]) for one in self.answers])
        columns: dict[str, list[float]] = {name: [] for name in METHODS}
        for _ in range(WINDOWS):
            parts = self._window(size, lengths, generator)
            for name, value in self._score(parts, size, generator).items():
                columns[name].append(value)
        return {name: np.array(values) for name, values in columns.items()}

    def _window(
        self, size: int, lengths: NDArray[np.int64], generator: np.random.Generator
    ) -> list[tuple[int, int, int]]:
        """(answer, first, end) of runs that make up `size` tokens, answers in random order."""
        parts, left = [], size
        for at in generator.permutation(len(lengths)):
            taken = min(left, int(lengths[at]))
            first = int(generator.integers(0, lengths[at] - taken + 1))
            parts.append((int(at), first, first + taken))
            left -= taken
            if not left:
                break
        return parts

    def _score(
        self, parts: list[tuple[int, int, int]], size: int, generator: np.random.Generator
    ) -> dict[str, float]:
        def gathered(name: str) -> Array:
            return np.concatenate([self.answers[at][name][a:b] for at, a, b in parts])

        weights = self.answers[0]["weights"]
        run = min(size, RUNS[-1])
        proofs: list[float] = []
        for at, _, _ in parts:
            proofs += self.answers[at]["toploc"][str(run)]
        chosen = generator.permutation(len(proofs))[: max(1, size // run)]
        return {
            "mismatches": float(np.logaddexp.reduce(weights + gathered("bets").sum(axis=0))),
            "margin": float(gathered("margin").mean()),
            "print1": float(np.logaddexp.reduce(gathered("print1").sum(axis=0))),
            "print4": float(np.logaddexp.reduce(gathered("print4").sum(axis=0))),
            "difr": float(gathered("difr").mean()),
            "toploc": float(np.mean([proofs[one] for one in chosen])) if proofs else 0.0,
        }


def partial_area(honest: Array, cheat: Array, most: float = FALSE_ALARMS) -> float:
    """Area under the ROC curve at false alarms below `most`, scaled so that chance is 0.5 and certainty 1.

    McClish, "Analyzing a portion of the ROC curve", Medical Decision Making 9 (1989).
    """
    thresholds = np.unique(np.concatenate([honest, cheat]))[::-1]
    false = np.concatenate([[0.0], 1 - np.searchsorted(np.sort(honest), thresholds) / len(honest)])
    true = np.concatenate([[0.0], 1 - np.searchsorted(np.sort(cheat), thresholds) / len(cheat)])
    inside = false <= most
    x = np.append(false[inside], most)
    y = np.append(true[inside], np.interp(most, false, true) if not inside.all() else 1.0)
    if (false == most).any():
        y[-1] = true[false == most].max()
    area = float(np.trapezoid(y, x))
    return 0.5 * (1 + (area - most**2 / 2) / (most - most**2 / 2))


def curves(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for dtype in DTYPES:
        pools = {}
        for path in sorted(root.glob(f"{dtype}-*.json")):
            data = json.loads(path.read_text("utf-8"))
            answers = [one for one in data["answers"] if len(one["margin"]) >= RUNS[-1]]
            for one in answers:
                one.update({name: np.asarray(one[name]) for name in one if name != "toploc"})
            pools[data["name"]] = Pool(answers)
        honest = pools.pop(HONEST)
        pools.pop(CALIBRATION)
        rows: dict[str, Any] = {name: {method: [] for method in METHODS} for name in pools}
        for size in SIZES:
            base = honest.windows(size, np.random.default_rng(1))
            for name, pool in pools.items():
                cheat = pool.windows(size, np.random.default_rng(2))
                for method in METHODS:
                    rows[name][method].append(round(partial_area(base[method], cheat[method]), 4))
            note(f"{dtype}: windows of {size}")
        found[dtype] = rows
    return {"sizes": SIZES, "false_alarms": FALSE_ALARMS, "windows": WINDOWS, "areas": found}


def plot(document: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ullage"
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for rows in document["areas"].values() for name in rows))
    shared = [name for name in names if all(name in rows for rows in document["areas"].values())]
    names = [name for name in names if name not in shared] + shared
    columns = [[name for name in names if name in rows] for rows in document["areas"].values()]
    height = max(map(len, columns))
    figure, axes = pyplot.subplots(2, height, figsize=(2.6 * height, 5.6), sharex=True, sharey=True)
    for line, (dtype, rows) in enumerate(document["areas"].items()):
        for place, axis in enumerate(axes[line]):
            if place >= len(columns[line]):
                axis.axis("off")
                continue
            name = columns[line][place]
            for method, label in METHODS.items():
                style = "-" if method in ("mismatches", "print1", "print4") else "--"
                axis.plot(document["sizes"], rows[name][method], style, label=label, linewidth=1.6)
            axis.set_xscale("log", base=2)
            axis.set_ylim(0.47, 1.02)
            axis.set_title(name, fontsize=9)
            axis.grid(alpha=0.3)
        axes[line][0].set_ylabel(f"declared {dtype}\nAUC, false alarms < 1 %", fontsize=9)
    figure.supxlabel("tokens", fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncol=6, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("score", "curves"))
    parser.add_argument("root", type=Path)
    parser.add_argument("--quick", action="store_true", help="A quarter of the answers.")
    parser.add_argument("--other", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    options.root.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if options.step == "score":
        score(options.root, 10 if options.quick else 40, options.other)
        return
    document = curves(options.root)
    print(json.dumps(document, indent=1))
    if options.plot is not None:
        plot(document, options.plot)


if __name__ == "__main__":
    main()
