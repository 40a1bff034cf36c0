"""Honest outputs for the monitor's false-alarm rate: what the built-in model says, sampled in batches.

    python benchmarks/monitor_outputs.py --seed 1 --count 2100 --out outputs-1.jsonl

Prompts are the demo's kinds: questions about names of the standard library, and openings of sentences.
One JSON string a line. Thresholds were fitted on seed 2; seed 3 was an earlier test, seed 4 is the test now:
different prompts and different noise.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

import torch

from ullage.model.builtin import builtin_path
from ullage.model.loading import load_causal_lm
from ullage.model.tokenizer import ModelTokenizer

MODULES = [
    "os",
    "os.path",
    "sys",
    "json",
    "re",
    "math",
    "decimal",
    "collections",
    "asyncio",
    "base64",
    "hashlib",
    "hmac",
    "random",
    "secrets",
    "string",
    "struct",
    "zlib",
    "gzip",
    "uuid",
    "binascii",
    "codecs",
    "csv",
    "datetime",
    "email",
    "functools",
    "html",
    "http",
    "io",
    "itertools",
    "logging",
    "pathlib",
    "pickle",
    "queue",
    "shutil",
    "socket",
    "sqlite3",
    "ssl",
    "statistics",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "typing",
    "unicodedata",
    "unittest",
    "urllib.parse",
    "urllib.request",
    "warnings",
    "weakref",
    "xml.etree.ElementTree",
    "zipfile",
]
OPENINGS = (
    "The words of the wise are", "When the king had heard", "In the beginning", "It was a dark night and",
    "And he said unto them", "My lord, I have", "There was once a", "The ship sailed", "def ", "class ",
    "import os\n", "    def __init__(self", '"""', "for i in range(", "if __name__ ==", "return self.",
    "The first of these", "On the following morning", "Now it came to pass", "O, what a",
)  # fmt: skip


def prompts(seed: int, count: int, tokenizer: ModelTokenizer) -> list[list[int]]:
    """Token ids of `count` prompts: half questions, half openings of text."""
    import importlib

    draw = random.Random(seed)
    found: list[list[int]] = []
    while len(found) < count:
        if draw.random() < 0.5:
            name = draw.choice(MODULES)
            members = [one for one in dir(importlib.import_module(name)) if not one.startswith("_")]
            question = f"What does {name}.{draw.choice(members)} do?"
            found.append(tokenizer.render_chat([{"role": "user", "content": question}]))
        else:
            found.append(tokenizer.encode(draw.choice(OPENINGS)))
    return found


@torch.inference_mode()
def main() -> None:
    """Sample and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, default=2100)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    folder = builtin_path()
    model, tokenizer = load_causal_lm(folder), ModelTokenizer.load(folder)
    waiting = sorted(prompts(given.seed, given.count, tokenizer), key=len)
    with given.out.open("w", encoding="utf-8") as file:
        done = 0
        while waiting:
            length = len(waiting[0])
            batch = [one for one in waiting[:128] if len(one) == length]
            waiting = waiting[len(batch) :]
            ids = torch.tensor(batch)
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                max_new_tokens=given.tokens,
                pad_token_id=0,
                use_cache=True,
            )
            for row in out[:, length:].tolist():
                kept = row[: row.index(0)] if 0 in row else row
                file.write(json.dumps(tokenizer.decode(kept)) + "\n")
            file.flush()
            done += len(batch)
            sys.stderr.write(f"\r{done}/{given.count}")


if __name__ == "__main__":
    main()
