"""A load of requests for the benchmarks of `work_*.py`, and what inference costs the server."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import httpx

from ullage.work.calibration import InferenceTime
from ullage.work.inference import Served
from work_ground.machine import processor_seconds

TOKENS = 48
BATCHES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
"""Inference is timed at these. Between two of them a step is taken to be as short as either allows."""


@dataclass
class Load:
    """Requests at a changing rate, and what came of them."""

    address: str
    rate: float
    served: list[Served] = field(default_factory=list)
    latencies: dict[float, list[float]] = field(default_factory=dict)
    turned_away: int = 0
    """Requests that were not sent, because 32 were open."""
    failed: int = 0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._client = httpx.Client(base_url=f"http://{self.address}", timeout=120)
        self._model = self._client.get("/v1/models").raise_for_status().json()["data"][0]["id"]
        self._room = threading.Semaphore(32)

    def ask(self, phase: float, prompt_words: int = 12, tokens: int = TOKENS) -> float:
        words = " ".join(f"{random.randrange(10**6)}" for _ in range(prompt_words))
        start_unix, start = time.time_ns(), time.perf_counter()
        reply = self._client.post(
            "/v1/completions",
            json={
                "model": self._model,
                "prompt": words,
                "max_tokens": tokens,
                "seed": random.getrandbits(31),
            },
        )
        seconds = time.perf_counter() - start
        usage = reply.raise_for_status().json()["usage"]
        with self._lock:
            number = len(self.served)
            # Prompts are random, so no prefix is shared; ids of its own stand for a record's tokens.
            prompt = tuple(number * 10_000 + n for n in range(usage["prompt_tokens"]))
            output = tuple(number * 10_000 + 5000 + n for n in range(usage["completion_tokens"]))
            self.served.append(Served(number, start_unix, time.time_ns(), prompt, output, True))
            self.latencies.setdefault(phase, []).append(seconds)
        return seconds

    def run(self, phases: tuple[float, ...], phase_seconds: float) -> None:
        threads = []
        for phase in phases:
            end = time.monotonic() + phase_seconds
            while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
                gap = random.expovariate(phase * self.rate) if phase else left
                self._stop.wait(min(gap, left))
                if gap >= left or self._stop.is_set():
                    continue
                if not self._room.acquire(blocking=False):
                    self.turned_away += 1
                    continue
                thread = threading.Thread(target=self._one, args=(phase,), daemon=True)
                thread.start()
                threads.append(thread)
        for thread in threads:
            thread.join(120)

    def _one(self, phase: float) -> None:
        try:
            self.ask(phase)
        except httpx.HTTPError:
            with self._lock:
                self.failed += 1
        finally:
            self._room.release()

    def stop(self) -> None:
        self._stop.set()

    def latency_alone(self, seconds: float) -> list[float]:
        """Seconds of each request at load 1 without filler. Nothing of it is accounted."""
        self.clear()
        self.run((1.0,), seconds)
        found = self.latencies.get(1.0, [])
        self.clear()
        return found

    def clear(self) -> None:
        self.served, self.latencies = [], {}


def inference_times(load: Load, pid: int, seconds: float) -> tuple[InferenceTime, float]:
    """Processor seconds a token of the server, at several batches, and for prompts: the twin's own figures.

    Also the requests a second of the largest batch. What an answer took holds its prompt, which is taken out
    again, since it earns by itself; its first token comes of the prompt.
    """
    load.ask(-1.0)  # nothing is timed cold
    before, count = processor_seconds(pid), _prompts(load)
    for _ in range(3):
        load.ask(-1.0, prompt_words=100, tokens=1)
    prefill = max(1e-9, (processor_seconds(pid) - before) / (_prompts(load) - count))
    decode = []
    saturated = 0.0
    for batch in BATCHES:
        workers = [
            threading.Thread(target=_ask_until, args=(load, time.monotonic() + seconds)) for _ in range(batch)
        ]
        load.clear()
        before, begin = processor_seconds(pid), time.monotonic()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        saturated = _tokens(load) / TOKENS / (time.monotonic() - begin)
        spent = processor_seconds(pid) - before - prefill * _prompts(load)
        decode.append((batch, max(1e-9, spent / max(1, _tokens(load) - len(load.served)))))
    decode = [(batch, min(s for _, s in decode[: n + 1])) for n, (batch, _) in enumerate(decode)]
    load.clear()
    times = InferenceTime(prefill=min(prefill, decode[-1][1]), decode=tuple(decode), operations=0.0)
    return times, saturated


def _ask_until(load: Load, end: float) -> None:
    while time.monotonic() < end:
        load.ask(-1.0)


def _prompts(load: Load) -> int:
    return sum(len(one.prompt) for one in load.served)


def _tokens(load: Load) -> int:
    return sum(len(one.output) for one in load.served)
