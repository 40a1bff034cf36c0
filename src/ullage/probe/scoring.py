"""One answer as every configuration sees it: teacher-forced over its own prompt and the same output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.probe.answers import Answer
from ullage.probe.configurations import Configuration, Weights
from ullage.probe.noise import WIDTH, ProbeNoise
from ullage.probe.questions import Question
from ullage.probe.splitting import Split, split_text
from ullage.probe.views import SHIFTS, SeededView, SoftmaxView, View, log_seed_evidence
from ullage.sampling.address import NoiseAddress
from ullage.sampling.candidates import Candidates, score_with_candidates
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.profiles import Profile


@dataclass(frozen=True)
class Scored:
    """An answer with all its views; `claimed` (T,) are the delivered tokens that count."""

    question: Question
    claimed: NDArray[np.int64]
    views: Mapping[str, View]
    """By configuration, the declared one among them; without those that cannot see this answer."""
    stopped: str = ""
    """Why a text was not read to its end; see `Split`."""
    seed_evidence: NDArray[np.float64] | None = None
    """ln of e-values (O,) that the tokens follow the seed, whatever the logits, for each of SHIFTS; None
    without Gumbel noise."""

    @property
    def declared(self) -> SeededView:
        view = self.views["declared"]
        assert isinstance(view, SeededView)  # noqa: S101 - it is made that way
        return view

    @property
    def mismatches(self) -> int:
        return int(np.count_nonzero(self.claimed != self.declared.winner))


class Scorer:
    """Holds the configurations' weights, and scores answers with them."""

    def __init__(
        self,
        weights: Weights,
        configurations: Sequence[Configuration],
        profile: Profile,
        noise: ProbeNoise,
        reach: float | None = None,
    ) -> None:
        self.weights, self.configurations = weights, tuple(configurations)
        self._profile, self._noise = profile, noise
        self._reach = noise.model.curve.cutoff if reach is None else reach

    def score(self, question: Question, answer: Answer) -> Scored | None:
        """None for an answer with no token that says anything."""
        split = self._tokens(question, answer)
        output = [token for token in split.ids if token < self.weights.declared.vocabulary_size]
        output = output[: question.max_tokens]
        if not output or len(output) < len(split.ids[: question.max_tokens]):
            return None
        views: dict[str, View] = {}
        kept: dict[tuple[str, tuple[int, ...]], NDArray[np.float32]] = {}
        for configuration in self.configurations:
            reference = self.weights.get(configuration.weights)
            prompt = configuration.prompt(reference, question)
            if not prompt or len(prompt) + len(output) > reference.context_length:
                continue
            key = (configuration.weights, prompt)
            if key not in kept:
                (kept[key],) = reference.logits([(*prompt, *output)], [len(prompt)])
            views[configuration.name] = self._view(configuration, question, prompt, output, kept[key])
        claimed = np.asarray(output, np.int64)
        return Scored(question, claimed, views, split.stopped, self._seed_evidence(question, claimed))

    def candidates(
        self, question: Question, output: Sequence[int]
    ) -> tuple[NDArray[np.int64], Candidates, NDArray[np.float64]]:
        """The declared configuration's winners (T,), near candidates and margins of an output."""
        reference, prompt = self.weights.declared, question.prompt_ids
        (logits,) = reference.logits([(*prompt, *output)], [len(prompt)])
        return self._near(logits, question, len(prompt), output, self.configurations[0])

    def _view(
        self,
        configuration: Configuration,
        question: Question,
        prompt: tuple[int, ...],
        output: Sequence[int],
        logits: NDArray[np.float32],
    ) -> View:
        if configuration.sampler == "unseeded":
            return SoftmaxView(logits, configuration.temperature or 1.0, self._noise)
        winner, near, margin = self._near(logits, question, len(prompt), output, configuration)
        return SeededView.of(winner, near, margin, self._noise)

    def _seed_evidence(self, question: Question, claimed: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """For each of SHIFTS, (O,): a longer prompt moves the noise of position-addressed profiles."""
        if question.parameters.greedy or not isinstance(self._profile, GumbelProfile):
            return None
        size, here = self.weights.declared.vocabulary_size, np.arange(len(claimed))
        found = np.full(len(SHIFTS), -len(claimed) * np.log(size))  # as good as impossible
        for column, shift in enumerate(SHIFTS):
            length = len(question.prompt_ids) + shift
            if length >= 1 and (self._profile.position_addressed or not shift):
                address = NoiseAddress.of_response(question.seed, length, len(claimed))
                noise = self._profile.noise(address, size).at(here, claimed)
                found[column] = log_seed_evidence(noise).sum()
        return found

    def _near(
        self,
        logits: NDArray[np.float32],
        question: Question,
        prompt_length: int,
        output: Sequence[int],
        configuration: Configuration,
    ) -> tuple[NDArray[np.int64], Candidates, NDArray[np.float64]]:
        claimed = np.asarray(output, np.int64)
        scores, near = score_with_candidates(
            self._profile,
            logits,
            claimed,
            configuration.parameters(question.parameters),
            NoiseAddress.of_response(question.seed, prompt_length, len(claimed)),
            reach=self._reach,
            width=WIDTH,
        )
        return scores.reference, near, scores.margin

    def _tokens(self, question: Question, answer: Answer) -> Split:
        if answer.token_ids is not None:
            return Split(answer.token_ids)
        tokenizer = self.weights.declared.tokenizer
        room = self.weights.declared.context_length - len(question.prompt_ids)

        def choices(output: Sequence[int], first: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            shown = output[:room]
            if len(shown) <= first:
                return np.zeros(0, np.int64), np.zeros((0, WIDTH), np.int64)
            winner, near, _ = self.candidates(question, shown)
            return winner[first:], near.ids[first:]

        return split_text(answer.text, answer.finish_reason == "stop", tokenizer, choices)
