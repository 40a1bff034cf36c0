"""The facts on which exactness rests, bit for bit, on the machine that runs this test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from tests.enforce.conftest import CHUNK
from tests.support.tiny_model import CONTEXT, VOCABULARY
from ullage.enforce.chunked import Chunk, ChunkedModel, KeyValues
from ullage.enforce.reference import ChunkedReference

LENGTH = 7 * CHUNK


@pytest.fixture(scope="module")
def ids() -> list[int]:
    found: list[int] = np.random.default_rng(3).integers(0, VOCABULARY, LENGTH).tolist()
    return found


def one_by_one(computer: ChunkedModel, ids: Sequence[int], memory: KeyValues) -> NDArray[np.float32]:
    """Logits of every position, a chunk a pass."""
    C = computer.chunk
    rows = [
        computer.compute([Chunk(memory, k * C, ids[k * C : (k + 1) * C], wants_logits=True)])[0]
        for k in range(len(ids) // C)
    ]
    return np.concatenate([np.empty((0, VOCABULARY), np.float32), *(row for row in rows if row is not None)])


@pytest.fixture(scope="module")
def alone(reference: ChunkedReference, ids: list[int]) -> NDArray[np.float32]:
    return one_by_one(reference.computer, ids, reference.computer.new_memory(LENGTH))


def test_rows_do_not_see_later_tokens_of_their_chunk(
    reference: ChunkedReference, ids: list[int], alone: NDArray[np.float32]
) -> None:
    computer = reference.computer
    generator = np.random.default_rng(4)
    for k in (0, 1, 6):
        memory = computer.new_memory(LENGTH)
        one_by_one(computer, ids[: k * CHUNK], memory)
        for known in range(1, CHUNK):
            others = generator.integers(0, VOCABULARY, CHUNK - known).tolist()
            changed = [*ids[k * CHUNK : k * CHUNK + known], *others]
            (rows,) = computer.compute([Chunk(memory, k * CHUNK, changed, wants_logits=True)])
            assert rows is not None
            assert rows[:known].tobytes() == alone[k * CHUNK : k * CHUNK + known].tobytes()


def test_keys_and_values_do_not_see_later_tokens_either(reference: ChunkedReference, ids: list[int]) -> None:
    computer = reference.computer
    whole, part = computer.new_memory(CHUNK), computer.new_memory(CHUNK)
    computer.compute([Chunk(whole, 0, ids[:CHUNK], wants_logits=False)])
    computer.compute([Chunk(part, 0, [*ids[:5], *[0] * (CHUNK - 5)], wants_logits=False)])
    for layer in range(computer.layers):
        for one, other in zip(whole.read(layer, 5), part.read(layer, 5), strict=True):
            assert torch.equal(one, other)


def test_rows_do_not_depend_on_room_that_is_not_used(
    reference: ChunkedReference, ids: list[int], alone: NDArray[np.float32]
) -> None:
    memory = reference.computer.new_memory(CONTEXT)
    assert one_by_one(reference.computer, ids, memory).tobytes() == alone.tobytes()


def test_passes_may_be_shared_where_the_machine_proves_it(
    reference: ChunkedReference, ids: list[int], alone: NDArray[np.float32]
) -> None:
    """Chunks of one sequence and chunks of others in one pass, in any order of sequences."""
    computer = reference.computer
    assert reference.batch >= 1
    generator = np.random.default_rng(5)
    for size in range(2, reference.batch + 1):
        other = generator.integers(0, VOCABULARY, CHUNK).tolist()
        memory, done = computer.new_memory(LENGTH), []
        for first in range(0, 7, size - 1):
            mine = [
                Chunk(memory, k * CHUNK, ids[k * CHUNK : (k + 1) * CHUNK], wants_logits=True)
                for k in range(first, min(first + size - 1, 7))
            ]
            stranger = Chunk(computer.new_memory(CHUNK), 0, other, wants_logits=bool(first % 2))
            found = computer.compute([stranger, *mine])
            done += [rows for rows in found[1:] if rows is not None]
        assert np.concatenate(done).tobytes() == alone.tobytes()


def test_a_full_pass_is_near_but_not_the_rule() -> None:
    """On a width that real models have; the tiny one is too small for kernels to differ."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=640,
        initializer_range=0.1,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).eval()
    ids: list[int] = np.random.default_rng(6).integers(0, VOCABULARY, 640).tolist()
    with torch.inference_mode():
        full = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    computer = ChunkedModel(model, 640, 32)
    alone = one_by_one(computer, ids, computer.new_memory(640))
    assert np.abs(full - alone).max() < 1e-4
    assert full.tobytes() != alone.tobytes()  # so one of them has to be the rule


def test_a_machine_that_disturbs_is_found_out(
    reference: ChunkedReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    computer = reference.computer
    honest = computer.compute

    def disturbed(chunks: Sequence[Chunk]) -> list[NDArray[np.float32] | None]:
        found = honest(chunks)
        if len(chunks) >= 3 and found[2] is not None:
            found[2] = np.nextafter(found[2], np.float32(np.inf))
        return found

    monkeypatch.setattr(computer, "compute", disturbed)
    assert computer.largest_batch(4, VOCABULARY) == 2
