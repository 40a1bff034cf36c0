"""The model's tokenizer and chat template, read without torch, so that the tap can hold one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from ullage.errors import UsageError
from ullage.model import settings
from ullage.model.chat_template import ChatTemplate
from ullage.model.stream_decoder import StreamDecoder

_MAX_TOKENIZER_BYTES = 256 << 20
_SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


class ModelTokenizer:
    """Text to token ids and back, as transformers' `AutoTokenizer` does for the same folder.

    `vocabulary_size` is the width V of the model's logits, `context_length` the most tokens of prompt and
    output together, `eos_ids` the tokens that end a text.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        chat_template: ChatTemplate | None,
        vocabulary_size: int,
        context_length: int,
        eos_ids: frozenset[int],
    ) -> None:
        self._tokenizer = tokenizer
        self._chat_template = chat_template
        self.vocabulary_size = vocabulary_size
        self.context_length = context_length
        self.eos_ids = eos_ids

    @classmethod
    def load(cls, folder: Path) -> ModelTokenizer:
        """Read `tokenizer.json`, `config.json` and the template of `folder`. Raises UsageError."""
        config = settings.read_config(folder)
        tokenizer = _read_tokenizer(folder / "tokenizer.json")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(
            tokenizer,
            _read_chat_template(folder),
            settings.vocabulary_size(config),
            settings.context_length(config),
            settings.end_ids(folder, config),
        )

    @property
    def has_chat_template(self) -> bool:
        """Whether chats can be rendered."""
        return self._chat_template is not None

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, special tokens added as the tokenizer's post-processor says."""
        return list(self._tokenizer.encode(_without_surrogates(text)).ids)

    def encode_bare(self, text: str) -> list[int]:
        """Token ids of a text that goes on from another: no special tokens are added."""
        return list(self._tokenizer.encode(_without_surrogates(text), add_special_tokens=False).ids)

    def spell(self, ids: Sequence[int]) -> str:
        """Text of the ids with special tokens written out, as a template writes them."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; special tokens are left out. Ids without a token decode to nothing."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def token(self, token_id: int) -> str | None:
        """The vocabulary's own spelling of a token, or None when the id names none."""
        token: str | None = self._tokenizer.id_to_token(token_id)
        return token

    def token_text(self, token_id: int) -> str:
        """What one token reads as by itself, special tokens included; U+FFFD for part of a character."""
        return str(self._tokenizer.decode([token_id], skip_special_tokens=False))

    def stream_decoder(self) -> StreamDecoder:
        """A decoder that takes ids one by one and gives text as soon as it is settled."""
        return StreamDecoder(self)

    def render_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of the chat, ending where the assistant's turn begins.

        Special tokens come from the template alone, so a template that writes the beginning-of-text token
        does not get a second one. Raises UsageError when the model has no template or it refuses.
        """
        if self._chat_template is None:
            raise UsageError("This model has no chat template; use /v1/completions with a plain prompt.")
        text = _without_surrogates(self._chat_template.render(messages))
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise UsageError(f"{path} is missing; save the model's tokenizer in the `tokenizers` format.")
    if path.stat().st_size > _MAX_TOKENIZER_BYTES:
        raise UsageError(f"{path} has more than {_MAX_TOKENIZER_BYTES} bytes.")
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises bare Exception
        raise UsageError(f"{path} is not a tokenizer: {error}.") from error


def _without_surrogates(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("The text holds half of a surrogate pair, which is no character.") from error
    return text


def _read_chat_template(folder: Path) -> ChatTemplate | None:
    tokenizer_config = settings.read_json(folder / "tokenizer_config.json")
    source: Any = settings.read_text(folder / "chat_template.jinja")
    if source is None:
        source = settings.read_json(folder / "chat_template.json").get("chat_template")
    if source is None:
        source = tokenizer_config.get("chat_template")
    if isinstance(source, list):  # several named templates: the one called "default"
        named = {item.get("name"): item.get("template") for item in source if isinstance(item, Mapping)}
        source = named.get("default")
    if source is None:
        return None
    if not isinstance(source, str):
        raise UsageError(f"The chat template in {folder} is not a text.")
    special = {**settings.read_json(folder / "special_tokens_map.json"), **tokenizer_config}
    return ChatTemplate(source, _special_tokens(special))


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _SPECIAL_TOKENS:
        value = config.get(name)
        content = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(content, str):
            found[name] = content
    return found
