"""Key-value memory for rows that join and leave a running batch at any step.

transformers' own caches hold one length for the whole batch. Here every row has a slot and a length
of its own: active rows fill slots 0 … n-1, a row that leaves hands its slot to the last one, and what
it wrote is zeroed, so that no request finds a trace of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_FIRST_CAPACITY = 256


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, `(slots, heads, capacity, D)` each."""

    is_sliding = False

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self._shared = shared

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = self._zeros(key_states)
        self.values = self._zeros(value_states)
        self.is_initialized = True

    def _zeros(self, states: torch.Tensor) -> torch.Tensor:
        # Zeros, not uninitialised memory: a masked NaN is still a NaN.
        shape = (self._shared.slots, states.shape[1], self._shared.capacity, states.shape[3])
        return torch.zeros(shape, dtype=states.dtype)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new states to the rows' slots; return all that the rows may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        shared = self._shared
        if shared.positions is None:  # prefill: new rows look at nothing but themselves
            rows, length = key_states.shape[0], key_states.shape[2]
            self.keys[shared.first : shared.first + rows, :, :length] = key_states
            self.values[shared.first : shared.first + rows, :, :length] = value_states
            return key_states, value_states
        rows = len(shared.rows)
        self.keys[shared.rows, :, shared.positions] = key_states[:, :, 0]
        self.values[shared.rows, :, shared.positions] = value_states[:, :, 0]
        return self.keys[:rows, :, : shared.longest], self.values[:rows, :, : shared.longest]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (query_length if self._shared.positions is None else self._shared.longest), 0

    def get_seq_length(self) -> int:
        return 0 if self._shared.positions is None else self._shared.longest - 1

    def get_max_length(self) -> int:
        return self._shared.limit

    def grow(self) -> None:
        if self.is_initialized:
            self.keys, self.values = self._grown(self.keys), self._grown(self.values)

    def _grown(self, states: torch.Tensor) -> torch.Tensor:
        larger = self._zeros(states)
        larger[:, :, : states.shape[2]] = states
        return larger

    def move(self, source: int, target: int, source_extent: int, target_extent: int) -> None:
        """Overwrite slot `target` by slot `source` and zero what is left over in both."""
        for states in (self.keys, self.values):
            if source != target:
                states[target, :, :source_extent] = states[source, :, :source_extent]
                states[target, :, source_extent:target_extent] = 0
            states[source, :, :source_extent] = 0


class _Shared:
    """What all layers know of the step at hand."""

    def __init__(self, slots: int, limit: int) -> None:
        self.slots = slots
        self.limit = limit
        self.capacity = min(_FIRST_CAPACITY, limit)
        self.first = 0
        self.rows = torch.arange(0)
        self.positions: torch.Tensor | None = None
        self.longest = 0


class SlotCache(Cache):  # type: ignore[misc]
    """`slots` rows of up to `limit` tokens in each of `layers` layers; memory grows with the longest row."""

    def __init__(self, layers: int, slots: int, limit: int) -> None:
        self._shared = _Shared(slots, limit)
        super().__init__(layers=[_SlotLayer(self._shared) for _ in range(layers)])
        self.lengths: list[int] = []
        self._extents: list[int] = []  # how much of each slot was written, padding included

    def begin_prefill(self, lengths: Sequence[int]) -> None:
        """Take a slot for each new row; the next forward pass fills them from right-padded prompts."""
        self._reserve(max(lengths))
        self._shared.first = len(self.lengths)
        self._shared.positions = None
        self.lengths.extend(lengths)
        self._extents.extend([max(lengths)] * len(lengths))

    def begin_decode(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for one token a row.

        Returns the new tokens' positions `(B,)` and which places each row may see, `(B, longest)` bool.
        """
        positions = torch.tensor(self.lengths)
        self.lengths = [length + 1 for length in self.lengths]
        self._extents = list(map(max, self._extents, self.lengths))
        longest = max(self.lengths)
        self._reserve(longest)
        shared = self._shared
        shared.rows, shared.positions, shared.longest = torch.arange(len(self.lengths)), positions, longest
        return positions, torch.arange(longest) <= positions[:, None]

    def release(self, slot: int) -> None:
        """Free a slot; the row in the last slot moves into it."""
        last = len(self.lengths) - 1
        for layer in self.layers:
            if layer.is_initialized:
                layer.move(last, slot, self._extents[last], self._extents[slot])
        for values in (self.lengths, self._extents):
            values[slot] = values[last]
            values.pop()

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Keys, then values, of layer after layer, `(slots, heads, capacity, D)` each; none before the first
        row."""
        layers = [layer for layer in self.layers if layer.is_initialized]
        return tuple(states for layer in layers for states in (layer.keys, layer.values))

    def _reserve(self, length: int) -> None:
        shared = self._shared
        if length <= shared.capacity:
            return
        while shared.capacity < length:
            shared.capacity *= 2
        shared.capacity = min(shared.capacity, shared.limit)
        for layer in self.layers:
            layer.grow()
