"""The engine without HTTP: numerics against the reference, rows that come and go, a model that breaks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.model.tiny_model import CONTEXT, VOCABULARY, write_tiny_model
from ullage.errors import FaultError, UsageError
from ullage.model.loading import load_causal_lm
from ullage.model.reference import Reference
from ullage.model.tokenizer import ModelTokenizer
from ullage.sampling.parameters import SamplingParameters
from ullage.server.batch import ModelBatch
from ullage.server.chooser import SeededChooser
from ullage.server.engine import Engine
from ullage.server.rows import Failure, Limits, Output, Row

RNG = np.random.default_rng(3)


def random_row(name: str, length: int, temperature: float = 1.0) -> Row:
    prompt = RNG.integers(1, VOCABULARY, length).tolist()
    return Row(name, int(RNG.integers(1 << 62)), prompt, SamplingParameters(temperature))


def run(engine: Engine, rows: Sequence[Row], limits: Limits) -> list[list[Output | Failure]]:
    """All outputs of all rows, submitted together."""
    outputs: list[list[Output | Failure]] = [[] for _ in rows]
    done: queue.Queue[int] = queue.Queue()

    def sink(index: int) -> Any:
        def receive(output: Output | Failure) -> None:
            outputs[index].append(output)
            if isinstance(output, Failure) or output.finish_reason:
                done.put(index)

        return receive

    for index, row in enumerate(rows):
        engine.submit(row, limits, sink(index))
    for _ in rows:
        done.get(timeout=60)
    return outputs


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load_causal_lm(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ModelTokenizer:
    return ModelTokenizer.load(folder)


@pytest.fixture
def engine(model: Any, tokenizer: ModelTokenizer) -> Iterator[Engine]:
    found = Engine(model, tokenizer, SeededChooser(), max_batch=5)
    found.start()
    yield found
    found.stop()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gemma2", "mistral"])
def test_decoding_agrees_with_the_teacher_forced_pass(tmp_path: Path, architecture: str) -> None:
    """Rows of different lengths join and leave; each row's logits are the reference's, to 1e-4."""
    reference = Reference.load(write_tiny_model(tmp_path, architecture))
    batch = ModelBatch(reference.model, 6, CONTEXT)
    rows: list[list[int]] = []
    prompt_lengths: list[int] = []
    seen: list[list[np.ndarray[Any, Any]]] = []
    slots: list[int] = []
    with torch.inference_mode():
        for joining, steps, leaving in [([9, 3], 5, [0]), ([1, 40, 7], 12, [2, 1]), ([100], 60, [])]:
            fresh = [RNG.integers(0, VOCABULARY, length).tolist() for length in joining]
            logits = batch.prefill(fresh).numpy()
            for prompt, row_logits in zip(fresh, logits, strict=True):
                slots.append(len(rows))
                rows.append(list(prompt))
                prompt_lengths.append(len(prompt))
                seen.append([row_logits])
            for _ in range(steps):
                tokens = RNG.integers(0, VOCABULARY, len(slots)).tolist()
                for slot, token in zip(slots, tokens, strict=True):
                    rows[slot].append(token)
                logits = batch.decode(tokens).numpy()
                for slot, row_logits in zip(slots, logits, strict=True):
                    seen[slot].append(row_logits)
            for slot in leaving:
                batch.release(slot)
                slots[slot] = slots[-1]
                slots.pop()
    expected = reference.logits([[*row, 0] for row in rows], prompt_lengths)
    for own, theirs in zip(seen, expected, strict=True):
        np.testing.assert_allclose(np.stack(own), theirs, atol=1e-4)


def test_threads_change_no_more_than_rounding(model: Any) -> None:
    """The tuner may switch threads at any step, and an audit need not know."""
    prompts = [RNG.integers(0, VOCABULARY, 3 + 5 * n).tolist() for n in range(9)]
    tokens = RNG.integers(0, VOCABULARY, (30, 9)).tolist()
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        batch = ModelBatch(model, 9, CONTEXT)
        with torch.inference_mode():
            found.append(torch.cat([batch.prefill(prompts), *(batch.decode(step) for step in tokens)]))
    torch.set_num_threads(before)
    torch.testing.assert_close(*found, atol=2e-5, rtol=0)


def test_a_freed_slot_holds_no_trace(model: Any) -> None:
    batch = ModelBatch(model, 3, CONTEXT)
    with torch.inference_mode():
        batch.prefill([[1, 2, 3], [4, 5], [6]])
        batch.decode([1, 2, 3])
        for slot in (0, 1, 0):
            batch.release(slot)
        for layer in batch._cache.layers:
            assert not layer.keys.any()
            assert not layer.values.any()


def test_sliding_windows_limit_the_context(tmp_path: Path) -> None:
    model = load_causal_lm(write_tiny_model(tmp_path, "mistral", sliding_window=48))
    assert ModelBatch(model, 2, CONTEXT).context_length == 48


@pytest.mark.parametrize(
    "facts",
    [{"layer_types": ["full_attention", "linear_attention"]}, {"state_size": 16}, {"layer_types": ["conv"]}],
)
def test_recurrent_models_are_refused(facts: dict[str, object]) -> None:
    config = SimpleNamespace(model_type="recurrent", num_hidden_layers=2, **facts)
    config.get_text_config = lambda: config
    with pytest.raises(UsageError, match="recurrent"):
        ModelBatch(SimpleNamespace(config=config, dtype=torch.float32), 2, CONTEXT)


def test_more_rows_than_slots(engine: Engine) -> None:
    rows = [random_row(str(index), 1 + index * 7 % 30) for index in range(17)]
    outputs = run(engine, rows, Limits(max_tokens=20))
    for row, found in zip(rows, outputs, strict=True):
        assert all(isinstance(output, Output) for output in found)
        assert [output.token_id for output in found if isinstance(output, Output)] == row.output_ids
        assert len(row.output_ids) == 20 or row.output_ids[-1] == 0
        last = found[-1]
        assert isinstance(last, Output)
        assert last.finish_reason == ("stop" if row.output_ids[-1] == 0 else "length")
    assert engine.occupancy == (0, 0)


def test_text_ends_at_the_context(engine: Engine) -> None:
    row = random_row("long", CONTEXT - 5, temperature=0.0)
    run(engine, [row], Limits(max_tokens=1000))
    assert len(row.prompt_ids) + len(row.output_ids) <= CONTEXT


def test_mixed_parameters_in_one_step(model: Any, tokenizer: ModelTokenizer) -> None:
    chooser = SeededChooser()
    rows = [random_row(str(index), 4, temperature=[0.0, 0.5, 1.0][index % 3]) for index in range(9)]
    logits = torch.from_numpy(RNG.normal(size=(9, VOCABULARY)).astype("float32"))
    together = chooser.choose(logits, rows)
    assert together == [chooser.choose(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]


def test_cancelled_rows_leave(engine: Engine) -> None:
    started = threading.Event()
    heard: list[Output | Failure] = []

    def sink(output: Output | Failure) -> None:
        heard.append(output)
        started.set()

    ticket = engine.submit(random_row("gone", 5), Limits(max_tokens=10_000), sink)
    assert started.wait(30)
    engine.cancel(ticket)
    other = random_row("stays", 5)
    run(engine, [other], Limits(max_tokens=12))
    count = len(heard)
    run(engine, [random_row("later", 5)], Limits(max_tokens=12))
    assert len(heard) == count
    assert engine.occupancy == (0, 0)


class _Breaking(SeededChooser):
    """Breaks once, at the first step that holds the row called "bad"."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: list[str] = []
        self.broke = False

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> Sequence[int]:
        if any(row.request_id == "bad" for row in rows) and not self.broke:
            self.broke = True
            raise ValueError("no such token")
        return super().choose(logits, rows)

    def finished(self, row: Row) -> None:
        self.forgotten.append(row.request_id)


def test_a_broken_step_fails_its_rows_and_no_others(model: Any, tokenizer: ModelTokenizer) -> None:
    chooser = _Breaking()
    engine = Engine(model, tokenizer, chooser, max_batch=4)
    engine.start()
    failed = run(engine, [random_row("bad", 3)], Limits(max_tokens=4))[0]
    assert len(failed) == 1
    assert isinstance(failed[0], Failure)
    good = run(engine, [random_row("good", 3)], Limits(max_tokens=4))[0]
    assert all(isinstance(output, Output) for output in good)
    assert chooser.forgotten == ["bad", "good"]
    engine.stop()
    with pytest.raises(FaultError):
        engine.submit(random_row("late", 3), Limits(1), lambda _: None)


def test_stopping_fails_what_still_runs(model: Any, tokenizer: ModelTokenizer) -> None:
    engine = Engine(model, tokenizer, SeededChooser(), max_batch=1)
    heard: queue.Queue[tuple[str, Output | Failure]] = queue.Queue()
    for name in ("running", "waiting"):
        row = random_row(name, 3)
        engine.submit(row, Limits(10_000), lambda output, name=name: heard.put((name, output)))  # type: ignore[misc]
    engine.start()
    heard.get(timeout=30)
    engine.stop()
    last: dict[str, Output | Failure] = {}
    while not heard.empty():
        name, output = heard.get()
        last[name] = output
    assert isinstance(last["waiting"], Failure)
