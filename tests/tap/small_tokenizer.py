"""A tokenizer made on the spot: bytes and four special tokens, with the model room's own class around it."""

from __future__ import annotations

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from ullage.model.chat_template import ChatTemplate
from ullage.model.tokenizer import ModelTokenizer

SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
EOS = 0
VOCABULARY = 272  # a few more than there are tokens, as models have it
CONTEXT = 512
_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}<|assistant|>"
)


def small_tokenizer() -> ModelTokenizer:
    """Token 4 + i is the i-th character of the byte alphabet; every byte has one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {character: index for index, character in enumerate([*SPECIAL, *alphabet])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return ModelTokenizer(tokenizer, ChatTemplate(_TEMPLATE, {}), VOCABULARY, CONTEXT, frozenset({EOS}))
