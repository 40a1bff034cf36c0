"""Small random models in Hugging Face's layout, written in a second: real loaders, real kernels."""

from __future__ import annotations

import json
from pathlib import Path

TEXT = [
    "The cat sat on the mat, and the dog sat on the log.",
    "A naïve café in 東京 sells 🙂 and 🍕; the price is 12,50 €.",
    "def add(a, b):\n    return a + b\n",
    "It was the best of times, it was the worst of times.",
]
SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}\n"
    "    {% if message.role == 'system' %}{{ '<|system|>' + message.content + eos_token }}\n"
    "    {% elif message.role == 'user' %}{{ '<|user|>' + message.content + eos_token }}\n"
    "    {% elif message.role == 'assistant' %}{{ '<|assistant|>' + message.content + eos_token }}\n"
    "    {% else %}{{ raise_exception('unknown role') }}{% endif %}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY = 400
CONTEXT = 192


def write_tiny_model(
    folder: Path, architecture: str = "llama", *, chat_template: str | None = CHAT_TEMPLATE, **changes: object
) -> Path:
    """A random model of that architecture with a byte-level BPE tokenizer; `changes` go to its config."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 10,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[0]
    )
    wrapped.chat_template = chat_template
    wrapped.save_pretrained(folder)

    settings: dict[str, object] = {
        "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None, "tie_word_embeddings": True,
        # Larger than usual, so that a random model has opinions.
        "initializer_range": 0.2,
    }  # fmt: skip
    if architecture == "gpt2":
        settings |= {"n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": CONTEXT}
    config = transformers.AutoConfig.for_model(architecture, **(settings | changes))
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: object) -> None:
    """Set keys of a JSON file."""
    data = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(data | changes), "utf-8")
