"""The reference's logits are the model's own, whatever they were batched with."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.tiny_model import CONTEXT, VOCABULARY, edit_json, write_tiny_model
from ullage.errors import UsageError
from ullage.model import reference as reference_module
from ullage.model.forward import logits_at
from ullage.model.identity import identify
from ullage.model.loading import load_causal_lm
from ullage.model.reference import Reference

RNG = np.random.default_rng(5)
SEQUENCES = [RNG.integers(0, VOCABULARY, int(n)).tolist() for n in RNG.integers(2, CONTEXT + 1, 12)]
PROMPTS = [max(1, len(sequence) // 3) for sequence in SEQUENCES]


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference.load(folder)


def test_rows_are_those_of_the_plain_model(reference: Reference) -> None:
    found = reference.logits(SEQUENCES, PROMPTS)
    for sequence, prompt_length, rows in zip(SEQUENCES, PROMPTS, found, strict=True):
        with torch.inference_mode():
            plain = reference.model(torch.tensor([sequence])).logits[0, prompt_length - 1 : -1]
        assert rows.dtype == np.float32
        assert rows.shape == (len(sequence) - prompt_length, VOCABULARY)
        np.testing.assert_allclose(rows, plain.numpy(), atol=1e-4)


def test_alone_or_in_a_batch_is_the_same(reference: Reference) -> None:
    together = reference.logits(SEQUENCES, PROMPTS)
    largest = max(
        float(np.abs(reference.logits([sequence], [prompt_length])[0] - rows).max(initial=0))
        for sequence, prompt_length, rows in zip(SEQUENCES, PROMPTS, together, strict=True)
    )
    assert largest <= 1e-4


def test_blocks_hold_every_row_once(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reference.logits(SEQUENCES, PROMPTS)
    monkeypatch.setattr(reference_module, "_BLOCK_LOGITS", 20 * VOCABULARY)  # 20 rows a block
    seen = 0
    for block in reference.iter_logits(SEQUENCES, PROMPTS):
        assert len(block.logits) <= 20
        start = 0
        for rows in block.rows:
            expected = whole[rows.sequence][rows.first_step : rows.first_step + rows.count]
            np.testing.assert_allclose(block.logits[start : start + rows.count], expected, atol=1e-4)
            start += rows.count
        assert start == len(block.logits)
        seen += start
    assert seen == sum(map(len, SEQUENCES)) - sum(PROMPTS)
    for split, rows_ in zip(reference.logits(SEQUENCES, PROMPTS), whole, strict=True):
        np.testing.assert_allclose(split, rows_, atol=1e-4)


def test_a_response_without_tokens_has_no_rows(reference: Reference) -> None:
    rows = reference.logits([[1, 2, 3], [4]], [3, 1])
    assert [part.shape for part in rows] == [(0, VOCABULARY), (0, VOCABULARY)]
    assert reference.logits([], []) == []


@pytest.mark.parametrize(
    ("sequence", "prompt_length", "message"),
    [
        ([1, VOCABULARY], 1, f"token {VOCABULARY}"),
        ([1, -1], 1, "token -1"),
        ([1] * (CONTEXT + 1), 1, "context"),
        ([1, 2], 0, "at least one token"),
        ([1, 2], 3, "prompt of 3"),
        ([], 0, "at least one token"),
    ],
)
def test_impossible_records_are_named(
    reference: Reference, sequence: list[int], prompt_length: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        reference.iter_logits([[1, 2], sequence], [1, prompt_length])


def test_identity_and_stack(reference: Reference, folder: Path) -> None:
    assert reference.identity == identify(folder)
    assert reference.stack_digest.startswith("sha256:")
    assert Reference.load(folder, "bfloat16").stack_digest != reference.stack_digest
    assert (reference.vocabulary_size, reference.context_length) == (VOCABULARY, CONTEXT)


def test_bfloat16_is_near(reference: Reference, folder: Path) -> None:
    rough = Reference.load(folder, "bfloat16").logits(SEQUENCES[:2], PROMPTS[:2])
    exact = reference.logits(SEQUENCES[:2], PROMPTS[:2])
    spread = float(np.std(exact[0]))
    difference = float(np.abs(rough[0] - exact[0]).max())
    assert rough[0].dtype == np.float32
    assert 0 < difference < spread


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2", "gemma2", "mistral"])
def test_picked_rows_in_other_architectures(tmp_path: Path, architecture: str) -> None:
    model = load_causal_lm(write_tiny_model(tmp_path, architecture))
    ids = torch.randint(0, VOCABULARY, (3, 17))
    rows, positions = torch.tensor([2, 0, 0]), torch.tensor([16, 3, 4])
    with torch.inference_mode():
        whole = model(ids).logits
        picked = logits_at(model, ids, rows, positions)
    torch.testing.assert_close(picked, whole[rows, positions].float(), atol=1e-4, rtol=0)


def test_missing_weights_are_not_invented(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "more")
    edit_json(tmp_path / "more" / "config.json", num_hidden_layers=4)
    with pytest.raises(UsageError, match="lacks"):
        load_causal_lm(tmp_path / "more")


@pytest.mark.parametrize("damage", ["truncate", "remove", "architecture", "shape"])
def test_a_damaged_model_is_one_error(tmp_path: Path, folder: Path, damage: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    weights = copy / "model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "remove":
        weights.unlink()
    elif damage == "shape":
        edit_json(copy / "config.json", intermediate_size=32)
    else:
        edit_json(copy / "config.json", model_type="no-such-architecture")
    with pytest.raises(UsageError, match=r"copy.*(cannot be loaded|lacks)"):
        load_causal_lm(copy)


def test_unknown_precision(folder: Path) -> None:
    with pytest.raises(UsageError, match="float16"):
        load_causal_lm(folder, "float16")


def test_code_beside_the_weights_is_not_run(tmp_path: Path, folder: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "evil.py").write_text("raise SystemExit('ran')\n")
    edit_json(
        copy / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
    )
    with pytest.raises(UsageError):
        load_causal_lm(copy)
