"""Ask an endpoint every question, a few at a time; each score is written at once, so a run can be resumed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TextIO

import httpx

from ullage.errors import FaultError, UsageError
from ullage.monitor.base64_score import Item, Score, question, score

VERSION: Final = 1
_ATTEMPTS: Final = 3
_MOST_ANSWER_BYTES: Final = 4 << 20
_MOST_FILE_BYTES: Final = 256 << 20
_TRY_AGAIN: Final = frozenset({408, 409, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Settings:
    """Whom to ask, and how. `api_key` is sent as a bearer token; it is never written down."""

    endpoint: str
    model: str | None = None
    seed: int = 1
    parallel: int = 8
    timeout: float = 300.0
    max_tokens: int = 8192
    api_key: str | None = None


@dataclass(frozen=True)
class Results:
    """Scores so far, and how many questions got no answer."""

    scores: dict[Item, Score]
    failed: int


def read_scores(path: Path, seed: int, model: str | None = None) -> dict[Item, Score]:
    """Scores of an earlier run in `path`; empty where there is no file.

    A torn last line is left out. Raises UsageError for a file of another version or seed, or of another
    model where both are known.
    """
    lines = _lines(path)
    try:
        head = json.loads(lines[0]) if lines else {}
    except ValueError:
        head = {}
    if lines and (not isinstance(head, dict) or (head.get("version"), head.get("seed")) != (VERSION, seed)):
        raise UsageError(f"{path} holds another run: version or seed differ. Name another file.")
    asked = head.get("model")
    if model is not None and asked is not None and asked != model:
        raise UsageError(f"{path} holds scores of the model {asked!r}, not of {model!r}. Name another file.")
    found: dict[Item, Score] = {}
    for line in lines[1:]:
        try:
            row = json.loads(line)
            found[Item(row["kind"], row["number"], row["direction"])] = Score(
                float(row["similarity"]), bool(row["refused"]), int(row["length"])
            )
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    if path.stat().st_size > _MOST_FILE_BYTES:
        raise UsageError(f"{path} is larger than the results of any run.")
    return path.read_text("utf-8", "replace").splitlines()


def run(
    settings: Settings, questions: Sequence[Item], path: Path, progress: Callable[[int, int], None]
) -> Results:
    """Ask what `path` has no score for; append scores as they come. Raises UsageError, FaultError."""
    known = read_scores(path, settings.seed, settings.model)
    waiting = [item for item in questions if item not in known]
    failed = asyncio.run(
        _ask_all(settings, waiting, path, known, lambda: progress(len(known), len(questions)))
    )
    wanted = set(questions)
    return Results({item: value for item, value in known.items() if item in wanted}, failed)


async def _ask_all(
    settings: Settings,
    waiting: list[Item],
    path: Path,
    known: dict[Item, Score],
    progress: Callable[[], None],
) -> int:
    headers = {"authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
    base = settings.endpoint.rstrip("/").removesuffix("/v1")
    limits = httpx.Limits(max_connections=settings.parallel)
    if not waiting:
        return 0
    failed = 0
    async with httpx.AsyncClient(
        base_url=base, headers=headers, timeout=settings.timeout, limits=limits
    ) as client:
        model = settings.model or await _first_model(client)
        read_scores(path, settings.seed, model)
        with _opened(path, settings.seed, model) as file:
            pool = asyncio.Semaphore(settings.parallel)

            async def one(item: Item) -> None:
                nonlocal failed
                async with pool:
                    answer = await _answer(client, model, question(item, settings.seed), settings.max_tokens)
                if answer is None:
                    failed += 1
                    return
                known[item] = score(item, settings.seed, answer)
                file.write(json.dumps(asdict(item) | asdict(known[item])) + "\n")
                file.flush()
                progress()

            for start in range(0, len(waiting), 512):
                await asyncio.gather(*(one(item) for item in waiting[start : start + 512]))
    return failed


def _opened(path: Path, seed: int, model: str) -> TextIO:
    """The file to append to, with the first line of a new one, and the end of a torn line of an old one."""
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"Results cannot be written to {path}: {error.strerror}.") from error
    if os.fstat(file.fileno()).st_size == 0:
        file.write(json.dumps({"version": VERSION, "seed": seed, "model": model}) + "\n")
    else:
        file.write("\n")
    file.flush()
    return file


async def _first_model(client: httpx.AsyncClient) -> str:
    try:
        response = await client.get("/v1/models")
        return str(response.json()["data"][0]["id"])
    except httpx.HTTPError as error:
        raise FaultError(f"{client.base_url} does not answer: {type(error).__name__}.") from error
    except httpx.InvalidURL as error:
        raise UsageError(f"{client.base_url} is not a URL.") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UsageError(
            f"{client.base_url} does not list its models; name one with --model-name."
        ) from error


async def _answer(client: httpx.AsyncClient, model: str, prompt: str, max_tokens: int) -> str | None:
    """The answer's text; None when there is none after some attempts."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    for attempt in range(_ATTEMPTS):
        if attempt:
            await asyncio.sleep(2.0**attempt - 1)
        try:
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                data = await _limited(response)
        except httpx.HTTPError:
            continue
        if response.status_code in _TRY_AGAIN:
            continue
        return _content(data) if response.status_code == 200 else None
    return None


async def _limited(response: httpx.Response) -> bytes:
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > _MOST_ANSWER_BYTES:
            break
    return bytes(data)


def _content(data: bytes) -> str | None:
    try:
        content = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return content if isinstance(content, str) else ""
