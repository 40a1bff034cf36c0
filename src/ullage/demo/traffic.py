"""The demo's clients: real prompts through the unmodified `openai` package, many at a time."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI

from ullage.demo.scenarios import Prompt

# What clients ask for, in turn: plain sampling, cooler, with filters, greedy.
_SETTINGS: tuple[dict[str, Any], ...] = (
    {"temperature": 1.0},
    {"temperature": 0.8},
    {"temperature": 1.0, "top_p": 0.95},
    {"temperature": 0.9, "extra_body": {"top_k": 50}},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9, "extra_body": {"top_k": 200}},
    {"temperature": 1.0},
    {"temperature": 0.0},
)
MAX_TOKENS = 128


@dataclass(frozen=True)
class Traffic:
    """What the clients saw."""

    requests: int
    output_tokens: int
    seconds: float


@dataclass
class _Tally:
    requests: int = 0
    output_tokens: int = 0


async def _ask(client: AsyncOpenAI, model: str, prompt: Prompt, index: int, max_tokens: int) -> int:
    """Send one prompt, every third as a stream; returns the number of output tokens."""
    settings = dict(_SETTINGS[index % len(_SETTINGS)], model=model, max_tokens=max_tokens)
    streaming = index % 3 == 0
    if streaming:
        settings |= {"stream": True, "stream_options": {"include_usage": True}}
    # The client's overloads cannot follow settings that are put together, hence Any.
    answer: Any
    if prompt.kind == "chat":
        messages: Any = [{"role": "user", "content": prompt.text}]
        answer = await client.chat.completions.create(messages=messages, **settings)
    else:
        answer = await client.completions.create(prompt=prompt.text, **settings)
    if not streaming:
        return int(answer.usage.completion_tokens)
    tokens = 0
    async for event in answer:
        tokens = event.usage.completion_tokens if event.usage else tokens
    return tokens


async def send(
    url: str,
    prompts: Sequence[Prompt],
    target_tokens: int,
    *,
    max_tokens: int = MAX_TOKENS,
    concurrency: int = 32,
    on_progress: Callable[[int], None] = lambda tokens: None,
) -> Traffic:
    """Every prompt at least once, then again until `target_tokens` output tokens have come."""
    tally = _Tally()
    began = time.monotonic()
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        model = (await client.models.list()).data[0].id

        def work() -> Iterator[tuple[int, Prompt]]:
            for index, prompt in enumerate(itertools.cycle(prompts)):
                if index >= len(prompts) and tally.output_tokens >= target_tokens:
                    return
                yield index, prompt

        items = work()

        async def worker() -> None:
            for index, prompt in items:
                tokens = await _ask(client, model, prompt, index, max_tokens)
                tally.output_tokens += tokens  # not `+= await`, which reads the tally before it waits
                tally.requests += 1
                on_progress(tally.output_tokens)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    return Traffic(tally.requests, tally.output_tokens, time.monotonic() - began)
