"""Keys and values of a sequence as the reference computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ullage.errors import IntegrityError


@torch.inference_mode()
def key_values(model: Any, tokens: Sequence[int]) -> list[NDArray[np.float32]]:
    """Keys, then values, of layer after layer after one full pass over `tokens`.

    Each is `(heads, S, D)` for S tokens, widened to float32 (exact for bfloat16). Raises IntegrityError for
    tokens that the model does not have, and for more than it has places for: both are somebody's word.
    """
    config = model.config.get_text_config()
    places = getattr(config, "max_position_embeddings", None) or len(tokens)
    if len(tokens) > places or not all(0 <= token < config.vocab_size for token in tokens):
        raise IntegrityError("Tokens were named that the declared model does not have, or too many of them.")
    found = model(input_ids=torch.tensor([list(tokens)]), use_cache=True).past_key_values
    return [
        states[0].float().numpy() for layer in found.layers for states in (layer.keys, layer.values)
    ]  # 2 x layers
