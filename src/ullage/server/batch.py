"""The model's side of continuous batching: prefill new rows, advance all rows by one token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ullage.errors import UsageError
from ullage.model.attention_window import attention_window
from ullage.model.forward import logits_at
from ullage.server.cache import SlotCache


class ModelBatch:
    """A running batch. Rows live in slots 0 … n-1; `release` moves the last row into the freed slot.

    float32 decoding agrees with the reference's teacher-forced pass to about 1e-5: the same kernels see
    the same positions, only the shapes of their products differ.
    """

    def __init__(self, model: Any, slots: int, context_length: int) -> None:
        config = model.config.get_text_config()
        self._model = model
        self._least = torch.finfo(model.dtype).min
        self.context_length = min(context_length, _attention_window(config))
        self._cache = SlotCache(int(config.num_hidden_layers), slots, self.context_length)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Add rows for these prompts; returns the logits `(N, V)` float32 after each prompt's last token."""
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        ids = torch.zeros((len(prompts), int(lengths.max())), dtype=torch.long)  # (N, S), padded right
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        self._cache.begin_prefill([len(prompt) for prompt in prompts])
        positions = torch.arange(ids.shape[1])[None].expand_as(ids)
        # No mask: attention is causal, so padding on the right is out of every prompt's sight.
        return logits_at(
            self._model, ids, torch.arange(len(prompts)), lengths - 1,
            position_ids=positions, past_key_values=self._cache, use_cache=True,
        )  # fmt: skip

    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to every row; returns the logits `(B, V)` float32 after it."""
        positions, visible = self._cache.begin_decode()
        mask = torch.zeros(visible.shape, dtype=self._model.dtype).masked_fill_(~visible, self._least)
        logits: torch.Tensor = self._model(
            input_ids=torch.tensor(tokens)[:, None],
            attention_mask=mask[:, None, None],  # (B, 1, 1, longest), added to the scores
            position_ids=positions[:, None],
            past_key_values=self._cache,
            use_cache=True,
        ).logits
        return logits[:, 0].float()

    def release(self, slot: int) -> None:
        self._cache.release(slot)

    @property
    def cache(self) -> SlotCache:
        """The key-value memory; slot i is row i."""
        return self._cache

    @property
    def rows(self) -> int:
        return len(self._cache.lengths)


def _attention_window(config: Any) -> int:
    """Raises UsageError for models with a state that is no key-value memory."""
    window = attention_window(config)
    if window is None:
        raise UsageError(
            f"The embedded server cannot batch {config.model_type} models: they keep a recurrent state. "
            "Put the tap before another engine instead."
        )
    return window
