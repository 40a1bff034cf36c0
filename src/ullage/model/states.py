"""Final hidden states: what goes into a model's head, seen where the head is called."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ullage.errors import FaultError, UsageError

if TYPE_CHECKING:
    from ullage.model.reference import Reference


class StateCapture:
    """Keeps the input of a model's head at its last call. Use it as `with`, or call `close`.

    Behind `logits_at` these are the picked places (N, H) in order, in a decoding step one row a sequence.
    Raises UsageError for a model without a head module.
    """

    def __init__(self, model: Any) -> None:
        head = model.get_output_embeddings()
        if head is None:
            raise UsageError(f"{type(model).__name__} has no head whose input could be read.")
        self._last: torch.Tensor | None = None
        self._hook = head.register_forward_hook(self._keep)

    def _keep(self, _: torch.nn.Module, arguments: tuple[Any, ...], __: object) -> None:
        self._last = arguments[0]

    def take(self) -> NDArray[np.float32]:
        """The states (N, H) of the last call, once. Raises FaultError if the head was not called."""
        found, self._last = self._last, None
        if found is None:
            raise FaultError(
                "The model computed logits without calling its head, so its states are not known."
            )
        states: NDArray[np.float32] = found.reshape(-1, found.shape[-1]).float().numpy(force=True)
        return states

    def close(self) -> None:
        self._hook.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def reference_states(
    reference: Reference, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int]
) -> list[NDArray[np.float32]]:
    """For each sequence the states (T, H) that the logits of its T output tokens came from.

    Arguments and errors as `Reference.logits`.
    """
    parts: list[list[NDArray[np.float32]]] = [[] for _ in sequences]
    with StateCapture(reference.model) as capture:
        for block in reference.iter_logits(sequences, prompt_lengths):
            states, start = capture.take(), 0
            for rows in block.rows:
                parts[rows.sequence].append(states[start : start + rows.count])
                start += rows.count
    width = int(reference.model.get_output_embeddings().weight.shape[1])
    return [np.concatenate(found) if found else np.empty((0, width), np.float32) for found in parts]
