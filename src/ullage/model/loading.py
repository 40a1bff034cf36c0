"""Weights from a local folder: safetensors only, no code of the model's, nothing fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors import SafetensorError

from ullage.errors import UsageError
from ullage.model.settings import check_precision

Precision = Literal["float32", "bfloat16"]
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_causal_lm(folder: Path, dtype: str = "float32") -> Any:
    """A transformers `PreTrainedModel` in evaluation mode on the CPU.

    Attention is torch's scaled dot product where the architecture has it, the plain product elsewhere.
    Raises UsageError when the folder is not such a model, when weights are missing from it (transformers
    would invent them), or when the precision is unknown.
    """
    check_precision(dtype)
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is not a model's folder: it has no config.json.")
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = _load(folder, _TYPES[dtype], "sdpa")
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise _not_a_model(folder, error) from error
        model, report = _load_eager(folder, _TYPES[dtype])
    except (OSError, KeyError, RuntimeError, SafetensorError, ImportError) as error:
        raise _not_a_model(folder, error) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise UsageError(f"{folder} lacks {len(missing)} of the model's weights, the first is {missing[0]}.")
    model.requires_grad_(False)
    return model.eval()


def _load_eager(folder: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    try:
        return _load(folder, dtype, "eager")
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError, ImportError) as error:
        raise _not_a_model(folder, error) from error


def _load(folder: Path, dtype: torch.dtype, attention: str) -> tuple[Any, dict[str, Any]]:
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        attn_implementation=attention,
        output_loading_info=True,
    )
    return model, report


def _not_a_model(folder: Path, error: BaseException) -> UsageError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return UsageError(f"{folder} cannot be loaded as a causal language model: {reason}")
