"""Calibration: the verifier's own honest server opens every state, and each is held against the
reference's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.errors import FaultError, UndecidedError, UsageError
from ullage.fingerprint.client import FingerprintClient
from ullage.fingerprint.commitment import Commitment, check_opening, transcript_digest
from ullage.fingerprint.tolerance import Tolerance, fit_tolerance
from ullage.model.loading import Precision
from ullage.model.tokenizer import ModelTokenizer
from ullage.probe.answers import Answer
from ullage.probe.client import Client
from ullage.probe.questions import Kind, Plan, Question, own_prompts
from ullage.sampling.parameters import SamplingParameters

_PARALLEL: Final = 8

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CalibrationPlan:
    """`url`: the server's API; `fingerprints`: its listener for verifiers. Both are the verifier's own."""

    url: str
    fingerprints: str
    model: Path
    dtype: Precision
    key: str
    answers: int = 100
    max_tokens: int = 48
    temperature: float = 1.0


def calibrate(plan: CalibrationPlan, progress: Progress) -> Tolerance:
    """Raises UsageError, FaultError for a server that does not answer, UndecidedError for too few answers."""
    from ullage.model.reference import Reference
    from ullage.model.states import reference_states

    reference = Reference.load(plan.model, plan.dtype)
    asked = Plan(
        own_prompts(kind_for(reference.tokenizer)),
        SamplingParameters(plan.temperature),
        plan.max_tokens,
        plan.key,
    )
    questions = list(islice(asked.questions(reference.tokenizer), plan.answers))
    distances: list[NDArray[np.float64]] = []
    with Client(plan.url) as client, FingerprintClient(plan.fingerprints) as prover:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            answers = list(zip(questions, pool.map(client.ask, questions), strict=True))
        listed = {bytes.fromhex(one.transcript): one.commitment() for one in prover.commitments()}
        for number, (question, answer) in enumerate(answers):
            progress("opening states", number, len(answers))
            output = _output(answer)
            states = _opened(prover, listed, question, output)
            sequence = (*question.prompt_ids, *output)
            (own,) = reference_states(reference, [sequence], [len(question.prompt_ids)])
            if own.shape != states.shape:
                raise UsageError(
                    "The server's states have another width than the model's; is it another model?"
                )
            distances.append(np.sum((states.astype(np.float64) - own) ** 2, axis=1))
    if not distances:
        raise UndecidedError("The server gave no answer to calibrate on.")
    return fit_tolerance(distances, width=own.shape[1], dtype=plan.dtype, model=reference.identity.digest)


def kind_for(tokenizer: ModelTokenizer) -> Kind:
    """Chats where the model has a template, texts to go on with elsewhere."""
    try:
        tokenizer.render_chat([{"role": "user", "content": "?"}])
    except UsageError:
        return "text"
    return "chat"


def _output(answer: Answer | None) -> tuple[int, ...]:
    if answer is None or not answer.token_ids:
        raise FaultError("The server did not answer with token ids; calibration needs a server of your own.")
    return answer.token_ids


def _opened(
    prover: FingerprintClient,
    listed: Mapping[bytes, Commitment],
    question: Question,
    output: tuple[int, ...],
) -> NDArray[np.float32]:
    transcript = transcript_digest(question.seed, question.prompt_ids, output)
    commitment = listed.get(transcript)
    if commitment is None:
        raise UsageError("The server commits to other transcripts than it delivers; is it the same server?")
    opened = prover.open(transcript, range(len(output)))
    return np.stack([check_opening(commitment, token, *one) for token, one in enumerate(opened)])
