"""One prompt, one seed, one reference: one transcript, whatever is drafted and however it is cut."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.tiny_model import CONTEXT, END, VOCABULARY
from ullage.enforce.rederive import Rederived, rederive
from ullage.enforce.reference import ChunkedReference
from ullage.enforce.scheduler import Job, Scheduler
from ullage.enforce.state import ReferenceState, Request, Step, run
from ullage.errors import UsageError
from ullage.model.reference import Reference
from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile

PROFILE = "murmur3-gumbel/f64"
PROMPT = tuple(range(20, 41))
SETTINGS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def request(seed: int = 1, max_tokens: int = 40, **fields: Any) -> Request:
    parameters = fields.pop("parameters", SamplingParameters(temperature=0.8, top_p=0.95))
    return Request(PROMPT, seed, parameters, max_tokens, **fields)


@cache
def known(reference: ChunkedReference, asked: Request, profile: str = PROFILE) -> Rederived:
    return rederive(
        reference,
        profile,
        asked.prompt_ids,
        seed=asked.seed,
        parameters=asked.parameters,
        max_tokens=asked.max_tokens,
        stop=asked.stop,
    )


@SETTINGS
@given(data=st.data())
def test_drafts_change_nothing(reference: ChunkedReference, data: st.DataObject) -> None:
    asked = request()
    right = known(reference, asked)
    state = ReferenceState(reference, get_profile(PROFILE), asked)
    while state.finish_reason is None:
        done = len(state.output_ids)
        truth = right.ids[done:]
        drafts = list(truth[: data.draw(st.integers(0, 24))])
        if data.draw(st.booleans()):
            drafts += data.draw(st.lists(st.integers(-3, VOCABULARY + 3), max_size=24))
        if data.draw(st.booleans()):
            state.forget()
        work = state.check(drafts) if drafts else state.decode(data.draw(st.integers(1, 3)))
        step = run(reference.computer, work, reference.batch)
        agreed = next((n for n, (d, t) in enumerate(zip(drafts, truth, strict=False)) if d != t), len(truth))
        if drafts:
            assert step.accepted == min(agreed, len(drafts), len(truth))
            assert len(step.tokens) == min(step.accepted + 1, len(drafts), len(truth))
        assert step.tokens == truth[: len(step.tokens)]
    assert (state.output_ids, state.finish_reason) == (right.ids, right.finish_reason)


@pytest.mark.parametrize(
    "profile", ["murmur3-gumbel/f32", "splitmix64-gumbel", "torch-exponential", "greedy"]
)
def test_every_profile_keeps_its_place(reference: ChunkedReference, profile: str) -> None:
    """Sequential ones too: the step is the response's, not the check's."""
    asked = request(seed=7, parameters=SamplingParameters(0.0 if profile == "greedy" else 0.9))
    right = known(reference, asked, profile)
    wrong = [*right.ids[:9], (right.ids[9] + 1) % VOCABULARY, *right.ids[10:]]
    for draft in (right.ids, wrong):
        again = rederive(
            reference,
            profile,
            PROMPT,
            seed=7,
            parameters=asked.parameters,
            max_tokens=asked.max_tokens,
            draft=draft,
        )
        assert again == right


def test_the_tokens_are_the_declared_samplers(reference: ChunkedReference, model_folder: Any) -> None:
    """Against the plain reference, whose logits differ in the last bits: no near-tie among these tokens."""
    asked = request(seed=11)
    right = known(reference, asked)
    (logits,) = Reference.load(model_folder).logits([(*PROMPT, *right.ids)], [len(PROMPT)])
    address = NoiseAddress.of_response(asked.seed, len(PROMPT), len(right.ids))
    assert get_profile(PROFILE).choose(logits, asked.parameters, address).tolist() == list(right.ids)


def test_the_end_is_the_references(reference: ChunkedReference) -> None:
    whole = known(reference, request(seed=3))
    decode = reference.tokenizer.decode
    shorter = known(reference, request(seed=3, max_tokens=10))
    assert (shorter.ids, shorter.finish_reason) == (whole.ids[:10], "length")
    stop = next(
        text for n in range(4, 30) if len(text := decode(whole.ids[n : n + 1])) == 1 and text.isascii()
    )
    stopped = known(reference, request(seed=3, stop=(stop,)))
    assert stopped.finish_reason == "stop"
    assert stop in decode(stopped.ids)
    assert stop not in decode(stopped.ids[:-1])
    ended = next(known(reference, request(seed=seed, max_tokens=200)) for seed in range(30, 90)
                 if END in known(reference, request(seed=seed, max_tokens=200)).ids)  # fmt: skip
    assert ended.ids.index(END) == len(ended.ids) - 1
    assert ended.finish_reason == "stop"


def test_requests_that_cannot_be(reference: ChunkedReference) -> None:
    profile = get_profile(PROFILE)
    good = {"prompt_ids": PROMPT, "seed": 1, "parameters": SamplingParameters(), "max_tokens": 5}
    for change in (
        {"prompt_ids": ()},
        {"prompt_ids": (VOCABULARY,)},
        {"max_tokens": 0},
        {"max_tokens": CONTEXT},
        {"seed": 1 << 63},
    ):
        with pytest.raises(UsageError):
            ReferenceState(reference, profile, Request(**{**good, **change}))  # type: ignore[arg-type]


def test_shared_passes_and_scarce_memory_change_nothing(reference: ChunkedReference) -> None:
    """Six requests, keys and values for four: each loses its own now and then."""
    scheduler = Scheduler(reference, CONTEXT + reference.chunk)
    asked = [request(seed=seed, max_tokens=30 + seed) for seed in range(6)]
    states = [ReferenceState(reference, get_profile(PROFILE), one) for one in asked]
    rights = [known(reference, one) for one in asked]
    lost = 0
    while any(state.finish_reason is None for state in states):
        answers: list[Step | Exception] = []
        for state, right in zip(states, rights, strict=True):
            done = len(state.output_ids)
            if state.finish_reason is None:
                lost += done > 0 and not state.holds_memory
                drafts = [*right.ids[done : done + 5], 9]
                scheduler.submit(Job(state, state.check(drafts), answers.append))
        while not scheduler.idle:
            scheduler.step()
        assert all(isinstance(answer, Step) for answer in answers)
    assert lost > 0
    assert [state.output_ids for state in states] == [right.ids for right in rights]


def test_a_reference_that_breaks_is_heard_of(
    reference: ChunkedReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(chunks: object) -> None:
        raise RuntimeError("no memory")

    scheduler = Scheduler(reference, 4 * CONTEXT)
    state = ReferenceState(reference, get_profile(PROFILE), request())
    answers: list[Step | Exception] = []
    scheduler.submit(Job(state, state.check([1, 2]), answers.append))
    with monkeypatch.context() as patched:
        patched.setattr(reference.computer, "compute", broken)
        scheduler.step()
    assert isinstance(answers[0], RuntimeError)
    assert scheduler.idle
    with pytest.raises(UsageError):
        Scheduler(reference, CONTEXT)
