"""One forward pass with logits at chosen positions only."""

from __future__ import annotations

from typing import Any

import torch


def logits_at(
    model: Any, input_ids: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor, **options: Any
) -> torch.Tensor:
    """Logits `(N, V)` in float32 of a causal language model at N places of a batch.

    `input_ids` is (B, S); place n is (`rows[n]`, `positions[n]`). The hidden states of those places are
    picked out just before the model's head, whose width makes it the dearest product of a small model,
    and whatever the model does with logits afterwards (scaling, capping) still happens. `options` go to
    the model. Not for two threads with one model.
    """

    def pick(_: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = arguments[0]  # (B, S, H)
        return (hidden[rows, positions].unsqueeze(0), *arguments[1:])  # (1, N, H)

    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(pick) if head is not None else None
    try:
        logits: torch.Tensor = model(input_ids=input_ids, **options).logits
    finally:
        if hook is not None:
            hook.remove()
    # A model that does not call its head as a module never met the hook: pick now.
    picked = logits[0] if logits.shape[:2] == (1, len(rows)) else logits[rows, positions]
    return picked.float()
