"""Train the built-in model: `python training/train.py --text english.txt.gz --out DIR`.

A small Llama (transformers' own class) with a byte-level BPE tokenizer, trained with Muon for the
matrices and AdamW for the rest (Jordan et al., 2024), on a schedule set by the clock: `--minutes` is
what it may take, and over the last two fifths of it the rate falls to zero.
The corpus is what `corpus.py` says. Held-out documents are scored in bits per UTF-8 byte.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Before torch: some virtual machines announce AMX and then refuse its instructions.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from corpus import (
    ASSISTANT,
    END,
    SPECIAL_TOKENS,
    SYSTEM,
    USER,
    Document,
    english_documents,
    standard_library_documents,
)

VOCABULARY = 4096
CONTEXT = 1024
SHORT = 512
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}" + USER + "{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}" + ASSISTANT + "{{ message['content'] }}" + END + ""
    "{% elif message['role'] == 'system' %}" + SYSTEM + "{{ message['content'] }}"
    "{% else %}{{ raise_exception('unknown role') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)


@dataclass(frozen=True)
class Split:
    """Token ids of one side of the split, documents separated by the end token."""

    ids: np.ndarray  # (N,) uint16
    utf8_bytes: int


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[Document]) -> Split:
    end = tokenizer.token_to_id(END)
    pieces: list[np.ndarray] = []
    for encoding in tokenizer.encode_batch([document.text for document in documents]):
        ids = encoding.ids if encoding.ids and encoding.ids[-1] == end else [*encoding.ids, end]
        pieces.append(np.asarray(ids, dtype=np.uint16))
    return Split(np.concatenate(pieces), sum(len(document.text.encode()) for document in documents))


def build_model(layers: int, hidden: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(progress: float) -> float:
    """Warm up over 2 % of the time, hold, then fall linearly to 0 over the last 40 %."""
    return min(1.0, progress / 0.02 + 0.01, max(0.0, (1.0 - progress) / 0.4))


def batch(ids: torch.Tensor, size: int, length: int, generator: torch.Generator) -> torch.Tensor:
    starts = torch.randint(0, len(ids) - length - 1, (size,), generator=generator)
    return torch.stack([ids[start : start + length + 1] for start in starts.tolist()])


def loss_of(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    on_gpu = rows.device.type == "cuda"  # on CPUs without AMX, bfloat16 is the slower one
    with torch.autocast("cuda", dtype=torch.bfloat16) if on_gpu else contextlib.nullcontext():
        logits = model(input_ids=rows[:, :-1]).logits  # (B, T, V)
    return torch.nn.functional.cross_entropy(
        logits.float().view(-1, logits.shape[-1]), rows[:, 1:].reshape(-1)
    )


@torch.no_grad()
def bits_per_byte(model: LlamaForCausalLM, split: Split, limit: int | None = None) -> float:
    """Held-out codelength of all tokens, end tokens included, over the UTF-8 bytes."""
    device = next(model.parameters()).device
    ids = torch.from_numpy(split.ids.astype(np.int64))
    model.eval()
    total, count = 0.0, 0
    last = len(ids) - CONTEXT - 1 if limit is None else min(limit, len(ids) - CONTEXT - 1)
    for start in range(0, last, CONTEXT):
        rows = ids[start : start + CONTEXT + 1][None].to(device)
        total += float(model(input_ids=rows, labels=rows).loss) * CONTEXT
        count += CONTEXT
    model.train()
    bytes_per_token = split.utf8_bytes / len(split.ids)
    return total / count / math.log(2) / bytes_per_token


def train(
    model: LlamaForCausalLM, data: Split, held_out: Split, minutes: float, seed: int
) -> dict[str, float]:
    device = next(model.parameters()).device
    ids = torch.from_numpy(data.ids.astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    chosen = optimizers(model)
    base = [[group["lr"] for group in optimizer.param_groups] for optimizer in chosen]
    # Small pieces on a CPU: the logits of a whole step cost more in page faults than in arithmetic.
    micro = 2 if device.type == "cpu" else 16
    began, step, seen, smoothed = time.monotonic(), 0, 0, 0.0
    while (progress := (time.monotonic() - began) / (60 * minutes)) < 1.0:
        size, length = (16, SHORT) if progress < 0.85 else (8, CONTEXT)
        for optimizer, rates in zip(chosen, base, strict=True):
            for group, value in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = value * rate(progress)
        loss = 0.0
        for rows in batch(ids, size, length, generator).to(device).split(micro, 0):
            part = loss_of(model, rows) * (len(rows) / size)
            part.backward()
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in chosen:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + size * length
        smoothed = loss if step == 1 else 0.98 * smoothed + 0.02 * loss
        if step % 50 == 0:
            note = (
                f" held-out {bits_per_byte(model, held_out, 65536):.3f} bits/byte" if step % 500 == 0 else ""
            )
            rate_now = seen / (time.monotonic() - began)
            print(
                f"{progress:6.1%} step {step} loss {smoothed:.3f} {rate_now:,.0f} tokens/s{note}", flush=True
            )
    return {"steps": step, "tokens_seen": seen, "seconds": round(time.monotonic() - began)}


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        bos_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(out)
    model.config.use_cache = True
    model.to(torch.bfloat16).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, action="append", required=True, help="text file, may be .gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="go on from this folder's weights and tokenizer")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    documents = [d for path in options.text for d in english_documents(path)]
    documents += list(standard_library_documents())
    if options.start:
        tokenizer = Tokenizer.from_file(str(options.start / "tokenizer.json"))
    else:
        tokenizer = train_tokenizer(d.text for d in documents if not d.held_out)
    data = encode(tokenizer, [d for d in documents if not d.held_out])
    held_out = encode(tokenizer, [d for d in documents if d.held_out])
    print(f"{len(data.ids):,} tokens to train on, {len(held_out.ids):,} held out")
    if options.start:
        model = LlamaForCausalLM.from_pretrained(options.start, dtype=torch.float32, use_safetensors=True)
    else:
        model = build_model(options.layers, options.hidden)
    model = model.to(options.device)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters on {options.device}")
    report: dict[str, float] = {}
    if options.start and (options.start / "training.json").exists():
        report = json.loads((options.start / "training.json").read_text())
    earlier = {key: report.get(key, 0) for key in ("steps", "tokens_seen", "seconds")}
    report |= dict(train(model, data, held_out, options.minutes, options.seed))
    report |= {key: report[key] + value for key, value in earlier.items()}
    save(model, tokenizer, options.out)
    report["parameters"] = parameters
    report["train_tokens"] = len(data.ids)
    report["held_out_tokens"] = len(held_out.ids)
    report["held_out_bits_per_byte"] = round(bits_per_byte(model.float(), held_out), 4)
    for source in ("english", "dialogue", "python", "question"):
        chosen = [d for d in documents if d.held_out and d.source == source]
        if chosen:
            report[f"held_out_bits_per_byte_{source}"] = round(
                bits_per_byte(model, encode(tokenizer, chosen)), 4
            )
    (options.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
