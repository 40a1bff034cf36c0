"""A log as an honest tap before an honest server would write it, made by a process of its own.

    python -m tests.support.sampled_log PLANS.json

Tokens are sampled by the reference model itself; `edits` then change records before they are written, so
that a test can say exactly what is wrong with a log whose signatures are right.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ullage.log.record import Outcome, Source
from ullage.model import instruction_set


@dataclass
class Plan:
    """What to write.

    `forced` maps a counter to tokens by position that the server delivers and goes on from. An edit maps a
    counter to fields of `Answer` that replace the sampled ones; also `tokens` (by position), `extra` (at
    the end) and `keep` (how many of the tokens stay).
    """

    log: str
    keys: str
    model: str
    answers: int = 12
    max_tokens: int = 40
    dtype: str = "bfloat16"
    profile: str = "murmur3-gumbel/f64"
    parameters: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"temperature": 1.0},
            {"temperature": 0.7, "top_p": 0.9, "top_k": 50},
            {"temperature": 0.0},
        ]
    )
    stop: list[str] = field(default_factory=list)
    model_digest: str | None = None
    selection_commitment: str | None = None
    commit_with: str | None = None
    forced: dict[str, dict[str, int]] = field(default_factory=dict)
    edits: dict[str, dict[str, Any]] = field(default_factory=dict)

    def sampling(self) -> str:
        """What the sampled answers depend on."""
        return json.dumps(
            [self.model, self.answers, self.max_tokens, self.parameters, self.stop, self.forced]
        )


def write_plans(plans: Sequence[Plan], path: Path) -> Path:
    path.write_text(json.dumps([asdict(plan) for plan in plans]))
    return path


@dataclass
class Answer:
    """One sampled answer."""

    prompt_ids: list[int]
    seed: int
    parameters: Any
    output_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    outcome: Outcome = "complete"
    source: Source = "client"


def sample(plan: Plan) -> list[Answer]:
    """Sample all answers together, one teacher-forced pass a step."""
    from ullage.audit.finish import finish_reason
    from ullage.model.reference import Reference
    from ullage.sampling.address import NoiseAddress
    from ullage.sampling.parameters import SamplingParameters
    from ullage.sampling.profiles import get_profile

    reference = Reference.load(Path(plan.model))
    profile = get_profile("murmur3-gumbel/f64")
    answers = []
    for number in range(plan.answers):
        digest = hashlib.sha256(b"answer %d" % number).digest()
        answers.append(
            Answer(
                prompt_ids=reference.tokenizer.encode(
                    f"Prompt number {number}: {digest.hex()[: number % 9]}"
                ),
                seed=int.from_bytes(digest[:8], "big") >> 1,
                parameters=SamplingParameters(**plan.parameters[number % len(plan.parameters)]),
            )
        )
    forced = {int(counter): tokens for counter, tokens in plan.forced.items()}
    unfinished = [(number, answer) for number, answer in enumerate(answers) if plan.max_tokens]
    while unfinished:
        # The last id only makes room: the row before it is the one that the next token comes from.
        rows = reference.logits(
            [[*a.prompt_ids, *a.output_ids, 0] for _, a in unfinished],
            [len(a.prompt_ids) + len(a.output_ids) for _, a in unfinished],
        )
        for (number, answer), logits in zip(unfinished, rows, strict=True):
            step = len(answer.output_ids)
            address = NoiseAddress.of_response(answer.seed, len(answer.prompt_ids), 1, step)
            chosen = int(profile.choose(logits, answer.parameters, address)[0])
            answer.output_ids.append(forced.get(number, {}).get(str(step), chosen))
            answer.finish_reason = finish_reason(
                answer.output_ids, len(answer.prompt_ids), plan.max_tokens, plan.stop, reference.tokenizer
            )
        unfinished = [one for one in unfinished if one[1].finish_reason is None]
    return answers


def edit(answers: list[Answer], edits: dict[str, dict[str, Any]]) -> None:
    for counter, changes in edits.items():
        answer = answers[int(counter)]
        for name, value in changes.items():
            if name == "tokens":
                for position, token in value.items():
                    answer.output_ids[int(position)] = token
            elif name == "extra":
                answer.output_ids.extend(value)
            elif name == "keep":
                del answer.output_ids[value:]
            else:
                setattr(answer, name, value)


def write(plan: Plan, answers: list[Answer]) -> None:
    from ullage.audit.selection import key_commitment, window_key, window_of_log
    from ullage.log.keys import load_tap_keys, load_verifier_keys
    from ullage.log.record import ClosePart, HeaderPart, OpenPart, Parameters
    from ullage.log.writer import LogWriter
    from ullage.model.identity import identify

    keys = load_tap_keys(Path(plan.keys))
    log_id = keys.new_log_id()
    commitment = plan.selection_commitment
    if plan.commit_with:
        secret = load_verifier_keys(Path(plan.commit_with)).selection
        commitment = key_commitment(window_key(secret, window_of_log(log_id)))
    header = HeaderPart(
        created=1,
        dtype=plan.dtype,
        log_id=log_id,
        model_digest=plan.model_digest or identify(Path(plan.model)).digest,
        profile=plan.profile,
        selection_commitment=commitment,
        software="ullage-test",
    )
    nothing = "sha256:" + hashlib.sha256(b"").hexdigest()
    with LogWriter.create(Path(plan.log), keys, header) as log:
        for counter, answer in enumerate(answers):
            log.append_sync(
                OpenPart(
                    bytes_from_client=100,
                    choice=0,
                    counter=counter,
                    endpoint="completions",
                    group=counter,
                    parameters=Parameters(
                        max_tokens=plan.max_tokens, stop=tuple(plan.stop), **answer.parameters.to_record()
                    ),
                    prompt_ids=tuple(answer.prompt_ids),
                    prompt_sources=((len(answer.prompt_ids), answer.source),) if answer.prompt_ids else (),
                    request_digest=nothing,
                    seed=answer.seed,
                    stream=False,
                    time_received=10 + counter,
                )
            )
            log.append_sync(
                ClosePart(
                    bytes_from_upstream=100,
                    bytes_to_client=100,
                    bytes_to_upstream=100,
                    counter=counter,
                    finish_reason=answer.finish_reason,
                    outcome=answer.outcome,
                    output_ids=tuple(answer.output_ids),
                    released_digest=nothing,
                    time_closed=20 + counter,
                )
            )


def main() -> None:
    sampled: dict[str, list[Answer]] = {}
    for fields in json.loads(Path(sys.argv[1]).read_text()):
        plan = Plan(**fields)
        if plan.sampling() not in sampled:
            sampled[plan.sampling()] = sample(plan)
        answers = copy.deepcopy(sampled[plan.sampling()])
        edit(answers, plan.edits)
        write(plan, answers)


if __name__ == "__main__":
    instruction_set.pin()
    main()
