"""The JSON files that lie beside a model's weights, read with a limit on their size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ullage.errors import MalformedError, UsageError
from ullage.plain_files import read_plain_file

_MAX_BYTES = 16 << 20

PRECISIONS = ("float32", "bfloat16")

_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len")


def read_text(path: Path) -> str | None:
    """The file's text, or None where there is none.

    Raises UsageError when it is too long, not UTF-8, or no plain file.
    """
    try:
        return read_plain_file(path, _MAX_BYTES).decode("utf-8")
    except FileNotFoundError:
        return None
    except MalformedError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8.") from error


def read_json(path: Path) -> dict[str, Any]:
    """The file's object, or an empty one where there is no file. Raises UsageError."""
    text = read_text(path)
    if text is None:
        return {}
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also for a number of too many digits
        raise UsageError(f"{path} is not JSON.") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} does not hold a JSON object.")
    return data


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json`, with the text model's part of a composite model on top. Raises UsageError."""
    config = read_json(folder / "config.json")
    if not config:
        raise UsageError(
            f"{folder} has no config.json; give the folder of a Hugging Face causal language model."
        )
    text_config = config.get("text_config")
    return {**config, **text_config} if isinstance(text_config, Mapping) else config


def check_precision(dtype: str) -> None:
    """Raises UsageError for a precision that we do not compute in."""
    if dtype not in PRECISIONS:
        raise UsageError(f"The precision {dtype!r} is unknown; choose {' or '.join(PRECISIONS)}.")


def vocabulary_size(config: Mapping[str, Any]) -> int:
    """The width V of the model's logits, which may exceed the tokenizer's length. Raises UsageError."""
    return _positive_integer(config, ("vocab_size",))


def context_length(config: Mapping[str, Any]) -> int:
    """The largest number of tokens, prompt and output together. Raises UsageError."""
    return _positive_integer(config, _CONTEXT_FIELDS)


def end_ids(folder: Path, config: Mapping[str, Any]) -> frozenset[int]:
    """The tokens that end a text: `generation_config.json` before `config.json`, as in transformers."""
    for source in (read_json(folder / "generation_config.json"), config):
        value = source.get("eos_token_id")
        ids = value if isinstance(value, list) else [value]
        if value is not None and all(isinstance(item, int) for item in ids):
            return frozenset(ids)
    return frozenset()


def _positive_integer(config: Mapping[str, Any], names: Iterable[str]) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and value > 0:
            return value
    raise UsageError(f"The model's config.json does not say {' or '.join(names)}.")
