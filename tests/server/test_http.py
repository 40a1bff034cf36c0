"""The real server process under the unmodified `openai` client."""

from __future__ import annotations

import concurrent.futures
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.model.tiny_model import CONTEXT, VOCABULARY
from tests.server.conftest import serving
from ullage.model.reference import Reference
from ullage.model.tokenizer import ModelTokenizer
from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile
from ullage.server.requests import MAX_BODY_BYTES

PROMPT = "The cat sat on"
IDS: dict[str, Any] = {"return_token_ids": True}


@pytest.fixture(scope="module")
def name(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ModelTokenizer:
    return ModelTokenizer.load(folder)


def ids_of(choice: Any) -> list[int]:
    """`token_ids` is no field of OpenAI's own schema; the client keeps it as an extra."""
    found: list[int] = choice.token_ids
    return found


def test_completion(client: openai.OpenAI, name: str, tokenizer: ModelTokenizer) -> None:
    answer = client.completions.create(model=name, prompt=PROMPT, max_tokens=20, seed=1, extra_body=IDS)
    choice = answer.choices[0]
    assert choice.finish_reason in ("stop", "length")
    assert choice.text == tokenizer.decode(ids_of(choice))
    assert choice.prompt_token_ids == tokenizer.encode(PROMPT)  # type: ignore[attr-defined]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(ids_of(choice)) <= 20
    assert answer.usage.prompt_tokens == len(tokenizer.encode(PROMPT))


def test_tokens_are_the_reference_s_own(client: openai.OpenAI, name: str, folder: Path) -> None:
    """What an audit does: recompute the logits, replay the noise, and find every token."""
    profile = get_profile("murmur3-gumbel/f64")
    sequences, seeds = [], []
    for seed in range(12):
        answer = client.completions.create(
            model=name, prompt=PROMPT, max_tokens=100, seed=seed, temperature=0.8, top_p=0.9,
            extra_body={"top_k": 50, **IDS},
        )  # fmt: skip
        choice: Any = answer.choices[0]
        sequences.append((choice.prompt_token_ids, ids_of(choice)))
        seeds.append(seed)
    logits = Reference.load(folder).logits(
        [prompt + output for prompt, output in sequences], [len(prompt) for prompt, _ in sequences]
    )
    parameters = SamplingParameters(0.8, 0.9, 50)
    for seed, (prompt, output), rows in zip(seeds, sequences, logits, strict=True):
        address = NoiseAddress.of_response(seed, len(prompt), len(output))
        assert profile.choose(rows, parameters, address).tolist() == output


def test_same_seed_same_answer_and_other_seed_another(client: openai.OpenAI, name: str) -> None:
    def run(seed: int | None) -> str:
        return client.completions.create(model=name, prompt=PROMPT, max_tokens=24, seed=seed).choices[0].text

    assert run(5) == run(5)
    assert len({run(seed) for seed in range(4)}) == 4
    assert run(None) != run(None)


def test_several_choices_use_seed_plus_index(client: openai.OpenAI, name: str) -> None:
    several = client.completions.create(
        model=name, prompt=PROMPT, max_tokens=16, seed=40, n=3, extra_body=IDS
    )
    for choice in several.choices:
        alone = client.completions.create(
            model=name, prompt=PROMPT, max_tokens=16, seed=40 + choice.index, extra_body=IDS
        )
        assert ids_of(alone.choices[0]) == ids_of(choice)
    assert [choice.index for choice in several.choices] == [0, 1, 2]


def test_alone_or_among_others_is_the_same(client: openai.OpenAI, name: str) -> None:
    def run(seed: int) -> list[int]:
        prompt = PROMPT + " and the dog" * (seed % 5)
        answer = client.completions.create(
            model=name, prompt=prompt, max_tokens=30 + 5 * seed, seed=seed, extra_body=IDS
        )
        return ids_of(answer.choices[0])

    alone = [run(seed) for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(8))) == alone


def test_prompt_forms(client: openai.OpenAI, name: str, tokenizer: ModelTokenizer) -> None:
    ids = tokenizer.encode(PROMPT)
    settings: dict[str, Any] = {"model": name, "max_tokens": 8, "seed": 3}
    text = client.completions.create(prompt=PROMPT, **settings).choices[0].text
    assert client.completions.create(prompt=ids, **settings).choices[0].text == text
    listed = client.completions.create(prompt=[PROMPT, "x", PROMPT], n=2, **settings).choices
    assert [choice.index for choice in listed] == list(range(6))
    assert listed[0].text == listed[4].text == text
    assert client.completions.create(prompt=[ids, ids], **settings).choices[1].text == text


def test_stream_is_the_plain_answer(client: openai.OpenAI, name: str, tokenizer: ModelTokenizer) -> None:
    settings: dict[str, Any] = {
        "model": name,
        "prompt": PROMPT,
        "max_tokens": 60,
        "seed": 11,
        "temperature": 1.5,
    }
    plain = client.completions.create(extra_body=IDS, **settings)
    text, ids, reasons, usage = "", [], [], None
    for chunk in client.completions.create(
        stream=True, stream_options={"include_usage": True}, extra_body=IDS, **settings
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.text
            ids += ids_of(choice)
            reasons.append(choice.finish_reason)
            assert tokenizer.decode(ids).startswith(text), "a delta held part of a character"
    assert (text, ids) == (plain.choices[0].text, ids_of(plain.choices[0]))
    assert usage == plain.usage
    assert [reason for reason in reasons if reason] == [plain.choices[0].finish_reason] == [reasons[-1]]


def test_chat_plain_and_streamed(client: openai.OpenAI, name: str, tokenizer: ModelTokenizer) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
    ]
    settings: dict[str, Any] = {"model": name, "messages": messages, "max_completion_tokens": 30, "seed": 2}
    answer: Any = client.chat.completions.create(extra_body=IDS, **settings)
    plain = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    assert answer.prompt_token_ids == tokenizer.render_chat(plain)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == tokenizer.decode(ids_of(answer.choices[0]))
    chunks: list[Any] = list(client.chat.completions.create(stream=True, extra_body=IDS, **settings))
    assert chunks[0].prompt_token_ids == answer.prompt_token_ids
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == answer.choices[0].message.content
    assert [token for chunk in chunks[1:] for token in ids_of(chunk.choices[0])] == ids_of(answer.choices[0])
    assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason


def test_chat_streams_several_choices(client: openai.OpenAI, name: str) -> None:
    settings: dict[str, Any] = {
        "model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, "n": 2,
        "seed": 2,
    }  # fmt: skip
    plain = client.chat.completions.create(**settings)
    texts = ["", ""]
    for chunk in client.chat.completions.create(stream=True, **settings):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in plain.choices]


def test_stop_strings(client: openai.OpenAI, name: str) -> None:
    settings: dict[str, Any] = {"model": name, "prompt": PROMPT, "max_tokens": 60, "seed": 11}
    whole = client.completions.create(extra_body=IDS, **settings).choices[0]
    stop = whole.text[20:23]
    cut = client.completions.create(stop=stop, extra_body=IDS, **settings).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert ids_of(cut) == ids_of(whole)[: len(ids_of(cut))]
    assert len(ids_of(cut)) < len(ids_of(whole))
    streamed = client.completions.create(stop=["\u0000never", stop], stream=True, **settings)
    assert "".join(chunk.choices[0].text for chunk in streamed) == cut.text
    never = client.completions.create(stop=["\u0000never"], **settings).choices[0]
    assert never.text == whole.text


def test_end_of_text_is_in_the_ids_and_not_in_the_text(
    client: openai.OpenAI, name: str, folder: Path
) -> None:
    for seed in range(300):
        answer = client.completions.create(
            model=name, prompt=PROMPT, max_tokens=100, seed=seed, temperature=3, extra_body=IDS
        )
        choice = answer.choices[0]
        assert 0 not in ids_of(choice)[:-1]
        if choice.finish_reason == "stop":
            assert ids_of(choice)[-1] == 0
            assert "<|end|>" not in choice.text
            return
        assert len(ids_of(choice)) == 100
    pytest.fail("no answer ended by itself")


def test_completion_logprobs(client: openai.OpenAI, name: str, folder: Path) -> None:
    answer: Any = client.completions.create(
        model=name, prompt=PROMPT, max_tokens=10, seed=4, temperature=0.7, logprobs=3, extra_body=IDS
    )
    choice = answer.choices[0]
    prompt, output = choice.prompt_token_ids, ids_of(choice)
    rows = Reference.load(folder).logits([prompt + output], [len(prompt)])[0].astype("float64")
    for step, token in enumerate(output):
        expected = rows[step, token] - math.log(sum(math.exp(value) for value in rows[step]))
        assert choice.logprobs.token_logprobs[step] == pytest.approx(expected, abs=1e-4)
        assert len(choice.logprobs.top_logprobs[step]) == 3
    assert len(choice.logprobs.tokens) == len(choice.logprobs.text_offset) == len(output)


def test_chat_logprobs(client: openai.OpenAI, name: str) -> None:
    settings: dict[str, Any] = {
        "model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, "seed": 1,
        "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    logprobs = client.chat.completions.create(**settings).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    streamed = [
        entry
        for chunk in client.chat.completions.create(stream=True, **settings)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content or []
    ]
    assert [entry.token for entry in streamed] == [entry.token for entry in logprobs.content]
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in logprobs.content)


UNSUPPORTED = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "functions": [{"name": "f"}],
    "frequency_penalty": 0.5,
    "presence_penalty": -1,
    "repetition_penalty": 1.1,
    "logit_bias": {"5": 1},
    "min_p": 0.1,
    "response_format": {"type": "json_object"},
    "best_of": 3,
    "echo": True,
    "suffix": "x",
    "ignore_eos": True,
    "stop_token_ids": [3],
    "min_tokens": 2,
    "prompt_logprobs": 1,
    "some_new_field": 1,
}


@pytest.mark.parametrize("endpoint", ["completions", "chat/completions"])
@pytest.mark.parametrize("field", sorted(UNSUPPORTED))
def test_unsupported_fields_are_refused_by_name(url: str, endpoint: str, field: str) -> None:
    body = {"prompt": "x"} if endpoint == "completions" else {"messages": [{"role": "user", "content": "x"}]}
    answer = httpx.post(f"{url}/v1/{endpoint}", json={**body, "max_tokens": 1, field: UNSUPPORTED[field]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert field in answer.json()["error"]["message"]


def test_fields_that_change_nothing_may_be_sent(url: str) -> None:
    neutral = {
        "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "min_p": 0, "best_of": 1,
        "echo": False, "suffix": None, "tools": [], "response_format": {"type": "text"},
        "logprobs": None, "stop": None, "top_k": -1, "repetition_penalty": 1.0,
    }  # fmt: skip
    answer = httpx.post(f"{url}/v1/completions", json={"prompt": "x", "max_tokens": 1, **neutral})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "x", "temperature": -1}, "temperature"),
        ({"prompt": "x", "temperature": "warm"}, "temperature"),
        ({"prompt": "x", "top_p": 1.5}, "top_p"),
        ({"prompt": "x", "top_k": -2}, "top_k"),
        ({"prompt": "x", "n": 0}, "n"),
        ({"prompt": "x", "n": 1000}, "n"),
        ({"prompt": ["x"] * 60, "n": 2}, "n"),
        ({"prompt": "x", "seed": -1}, "seed"),
        ({"prompt": "x", "seed": 2**63}, "seed"),
        ({"prompt": "x", "seed": 2**63 - 1, "n": 2}, "seed"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "max_tokens": CONTEXT}, "max_tokens"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "stop": [""]}, "stop"),
        ({"prompt": "x", "stop": ["a"] * 17}, "stop"),
        ({"prompt": "x", "stream": "yes"}, "stream"),
        ({"prompt": "x", "stream_options": {"other": 1}}, "stream_options"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [VOCABULARY]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [1, "x"]}, "prompt"),
        ({"prompt": [1] * CONTEXT}, "prompt"),
        ({"prompt": "the cat " * 500}, "prompt"),
        ({"prompt": "half \ud800"}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({}, "prompt"),
    ],
)
def test_bad_values_are_refused_by_name(url: str, body: dict[str, Any], param: str) -> None:
    answer = httpx.post(f"{url}/v1/completions", content=json.dumps(body))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "name": "me"}]}, "messages"),
        ({"messages": [{"role": "developer", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": "x"}], "max_tokens": 3, "max_completion_tokens": 4},
            "max_tokens",
        ),
        ({"messages": [{"role": "user", "content": "x"}], "top_logprobs": 4}, "top_logprobs"),
    ],
)
def test_bad_chats_are_refused_by_name(url: str, body: dict[str, Any], param: str) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'"x"'])
def test_what_is_not_json_is_refused(url: str, body: bytes) -> None:
    answer = httpx.post(f"{url}/v1/completions", content=body)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]["message"]


def test_wrong_addresses(url: str, client: openai.OpenAI, name: str) -> None:
    assert httpx.get(f"{url}/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{url}/v1/completions").status_code == 405
    assert httpx.get(f"{url}/health").json()["status"] == "ok"
    assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_long_body_is_refused(url: str) -> None:
    answer = httpx.post(f"{url}/v1/completions", content=b" " * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413


def _wait_until_idle(http: httpx.Client) -> None:
    deadline = time.monotonic() + 20
    while True:
        health = http.get("/health").json()
        if not health["active"] + health["waiting"]:
            return
        assert time.monotonic() < deadline, "a request that was given up still runs"
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_rows(url: str, stream: bool) -> None:
    # 64 rows in 32 slots need more steps than the client waits for.
    body = {"prompt": PROMPT, "max_tokens": 150, "n": 64, "stream": stream, "return_token_ids": True}
    with httpx.Client(base_url=url, timeout=60) as http, httpx.Client(base_url=url) as other:
        _wait_until_idle(other)
        if stream:
            with http.stream("POST", "/v1/completions", json=body) as answer:
                next(answer.iter_lines())
                health = other.get("/health").json()
                assert health["active"] + health["waiting"] > 0  # between two batches all may be waiting
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/completions", json=body, timeout=httpx.Timeout(60, read=0.15))
        _wait_until_idle(other)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_cleanly_on_a_signal(folder: Path, number: signal.Signals) -> None:
    with serving("--model", str(folder), "--dtype", "bfloat16", "--max-batch", "2") as (address, process):
        body = {"prompt": PROMPT, "max_tokens": 8, "n": 5}
        assert len(httpx.post(f"{address}/v1/completions", json=body, timeout=60).json()["choices"]) == 5
        process.send_signal(number)
        out, error = process.communicate(timeout=60)
    assert process.returncode == (0 if number == signal.SIGTERM else 130), error
    assert (out, error) == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "/nowhere"], "config.json"),
        (["--listen", "nonsense"], "HOST:PORT"),
        (["--dtype", "float8"], "float8"),
        (["--listen", "203.0.113.1:80"], "Cannot listen"),
    ],
)
def test_wrong_options_end_in_one_sentence(folder: Path, options: list[str], message: str) -> None:
    command = [
        sys.executable,
        "-c",
        "from ullage.cli.main import run; run()",
        "serve",
        "--model",
        str(folder),
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
