"""Keys and values of a sequence as the reference computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@torch.inference_mode()
def key_values(model: Any, tokens: Sequence[int]) -> list[NDArray[np.float32]]:
    """Keys, then values, of layer after layer after one full pass over `tokens`.

    Each is `(heads, S, D)` for S tokens, widened to float32 (exact for bfloat16).
    """
    found = model(input_ids=torch.tensor([list(tokens)]), use_cache=True).past_key_values
    return [
        states[0].float().numpy() for layer in found.layers for states in (layer.keys, layer.values)
    ]  # 2 x layers
