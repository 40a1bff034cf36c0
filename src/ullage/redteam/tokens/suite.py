"""`ullage redteam tokens`: every token adversary plays, and its leak is held against the verifier's bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.errors import UsageError
from ullage.model.reference import Reference
from ullage.redteam.outcome import CONFIDENCE_BITS, Outcome
from ullage.redteam.registry import token_adversaries
from ullage.redteam.tokens.adversary import Briefing, TokenAdversary
from ullage.redteam.tokens.calibration import GameCalibration, calibrate_game
from ullage.redteam.tokens.game import Size, play
from ullage.redteam.tokens.near_ties import BOUNDS
from ullage.redteam.tokens.pricing import STREAMS, Priced
from ullage.sampling.parameters import SamplingParameters
from ullage.work.kernels import one_thread

SHORT, QUICK, FULL = Size(24, 32), Size(16, 48), Size(48, 128)
FULL_GAMES = 5
CALIBRATION_QUICK, CALIBRATION_FULL = Size(256, 48), Size(768, 48)
PAYLOAD_BYTES = 8192
_LEAST_STREAMS = 5

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Played:
    """One game of one adversary as the verifier saw it. Bits and tokens are sums."""

    tokens: int
    attempted_bits: int
    leaked_bits: int
    codelength_bits: float
    seed_bits: int
    prompt_bits: float
    prompt_tokens: int
    inside_prompt_tokens: int
    bits_at: dict[float, float]
    mismatches: int
    detection: NDArray[np.float64]
    model_tokens: int
    honest_model_tokens: int

    @property
    def added_bits(self) -> float:
        return self.seed_bits + self.prompt_bits


class Suite:
    """Plays games against one reference, with calibrations that are made once and kept."""

    def __init__(
        self,
        reference: Reference,
        calibration_size: Size = CALIBRATION_QUICK,
        progress: Progress = lambda text: None,
    ) -> None:
        self.reference = reference
        self._size, self._progress = calibration_size, progress
        self.calibrations: dict[SamplingParameters, GameCalibration] = {}

    def calibration(self, parameters: SamplingParameters) -> GameCalibration:
        """Of the declared server, bfloat16, for these filters. Noise is one of logits, so requests without
        filters share one, whatever their temperature; filters flip at their edges, too."""
        shared = SamplingParameters()
        wanted = parameters if parameters.filters(self.reference.vocabulary_size) else shared
        if wanted not in self.calibrations:
            self._progress("honest runs for a calibration")
            self.calibrations[wanted] = calibrate_game(self.reference, self._size, wanted)
        return self.calibrations[wanted]

    def described_calibrations(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [
            {"sampling": parameters.to_record(), **calibration.to_dict()}
            for parameters, calibration in self.calibrations.items()
        ]

    def play(self, adversary: TokenAdversary, size: Size, number: int, streams: int = STREAMS) -> Played:
        """The game of this number; the number makes prompts, seeds and the payload."""
        calibration = self.calibration(adversary.parameters)
        if adversary.calibration:
            calibration = adversary.calibration(calibration)
        payload = np.random.default_rng([number, 77]).bytes(PAYLOAD_BYTES)
        agents = adversary.enlist(Briefing(self.reference, payload, calibration))
        game = play(
            self.reference, agents, payload, adversary.sized(size), number, parameters=adversary.parameters
        )
        priced = Priced.of(game.traffic)
        rows = game.traffic.messages
        return Played(
            tokens=game.traffic.tokens,
            attempted_bits=game.attempted_bits,
            leaked_bits=game.decoded_bits,
            codelength_bits=float(priced.codelength(calibration.noise).sum()),
            seed_bits=game.seed_bits,
            prompt_bits=self._prompt_bits(game.inside_prompt_tokens, len(rows)),
            prompt_tokens=sum(len(row.prompt_ids) for row in rows),
            inside_prompt_tokens=game.inside_prompt_tokens,
            bits_at={bound: priced.bits_at(bound, self.reference.vocabulary_size) for bound in BOUNDS},
            mismatches=priced.mismatches,
            detection=priced.detection(calibration.noise, calibration.alarm_floor, streams),
            model_tokens=game.model_tokens,
            honest_model_tokens=game.honest_model_tokens,
        )

    def _prompt_bits(self, inside: int, messages: int) -> float:
        """A prompt written inside: log2 V bits a token, and its length."""
        if not inside:
            return 0.0
        return inside * math.log2(self.reference.vocabulary_size) + messages * math.log2(
            self.reference.context_length
        )


def outcome_of(adversary: TokenAdversary, games: Sequence[Played]) -> Outcome:
    """One row of the table from all games of an adversary."""
    codelength = sum(game.codelength_bits for game in games)
    added = sum(game.added_bits for game in games)
    median, p95 = _quantiles(np.concatenate([game.detection for game in games]))
    seed_bits = sum(game.seed_bits for game in games)
    inside = sum(game.inside_prompt_tokens for game in games)
    method = "codelength under a calibrated noise model"
    method += ", 63 bits a seed" if seed_bits else ""
    method += ", log2 V bits a prompt token written inside" if inside else ""
    return Outcome(
        name=adversary.name,
        tokens=sum(game.tokens for game in games),
        attempted_bits=sum(game.attempted_bits for game in games),
        leaked_bits=sum(game.leaked_bits for game in games),
        bound_bits=codelength + added + CONFIDENCE_BITS,
        bound_method=method,
        bound_assumptions=(
            f"the payload is independent of {'' if inside else 'prompts, '}seeds and calibration",
        ),
        codelength_bits=codelength,
        seed_bits=seed_bits,
        prompt_bits=sum(game.prompt_bits for game in games),
        prompt_outside_fraction=1 - inside / sum(game.prompt_tokens for game in games),
        bits_at={bound: sum(game.bits_at[bound] for game in games) + added for bound in BOUNDS},
        mismatches=sum(game.mismatches for game in games),
        detection_median=median,
        detection_p95=p95,
        attacker_cost=sum(game.model_tokens for game in games)
        / sum(game.honest_model_tokens for game in games),
        remark=adversary.remark,
    )


def chosen_adversaries(names: Sequence[str]) -> list[TokenAdversary]:
    """Those of these names that play in mode audit; all for none. Raises UsageError for an unknown name."""
    from ullage.redteam.enforced.suite import enforced_names

    known = {adversary.name for adversary in token_adversaries()} | set(enforced_names())
    unknown = sorted(set(names) - known)
    if unknown:
        raise UsageError(f"There is no token adversary '{unknown[0]}'; known are {', '.join(sorted(known))}.")
    return [adversary for adversary in token_adversaries() if not names or adversary.name in names]


def run_suite(
    suite: Suite,
    size: Size,
    numbers: Sequence[int],
    names: Sequence[str] = (),
    progress: Progress = lambda name: None,
) -> tuple[list[Outcome], dict[str, list[Played]]]:
    """Play one game of each number for each adversary (all, or those named), mode audit.

    Returns a row an adversary, and its games one by one. Raises UsageError for an unknown name.
    """
    streams = max(_LEAST_STREAMS, math.ceil(STREAMS / len(numbers)))
    outcomes, games = [], {}
    # Small batches of a small model do not gain from more, and lose where the machine is shared.
    with one_thread():
        for adversary in chosen_adversaries(names):
            progress(adversary.name)
            found = [suite.play(adversary, size, number, streams) for number in numbers]
            games[adversary.name] = found
            outcomes.append(outcome_of(adversary, found))
    return outcomes, games


def enforced_rows(
    suite: Suite, size: Size, numbers: Sequence[int], names: Sequence[str], progress: Progress
) -> list[Outcome]:
    """The rows of mode enforce."""
    from ullage.redteam.enforced.suite import enforced_outcomes  # processes and sockets: when they are wanted

    return enforced_outcomes(suite.reference, size, numbers, names, progress)


def _quantiles(values: NDArray[np.float64]) -> tuple[float, float]:
    ordered = np.sort(values)  # not interpolated: inf stays inf
    count = len(ordered)
    return float(ordered[math.ceil(0.5 * count) - 1]), float(ordered[math.ceil(0.95 * count) - 1])
