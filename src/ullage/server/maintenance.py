"""Stopping a running server, emptying it, and starting it again from files that were handed in.

Built for erasure: between `stop` and `start` the process holds neither weights nor key-value memory, and
requests wait in the queue. Weights live in one buffer a file, exactly as the file has them, so that what is
in memory can be compared with the declared digest byte by byte.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from ullage.errors import FaultError
from ullage.model.loading import load_causal_lm
from ullage.server.engine import Engine

_TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_PAGE_BYTES = 4096
_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - a file system in memory: the disk sees no weights


class FileBuffer:
    """A file of the model in anonymous memory; `size` is rounded up to whole pages."""

    def __init__(self, name: str, length: int) -> None:
        self.name = name
        self.length = length
        self.size = -(-max(length, 1) // _PAGE_BYTES) * _PAGE_BYTES
        self.locked = False
        self.memory = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = memoryview(self.memory)

    @property
    def content(self) -> memoryview:
        return self._view[: self.length]

    def read(self, offset: int, size: int) -> memoryview:
        return self._view[offset : offset + size]


class TensorBuffer:
    """A tensor's memory by name."""

    def __init__(self, name: str, tensor: torch.Tensor) -> None:
        self.name = name
        self._view = tensor.detach().reshape(-1).view(torch.uint8).numpy().data
        self.size = len(self._view)

    def read(self, offset: int, size: int) -> memoryview:
        return self._view[offset : offset + size]


class CacheBuffers:
    """Key-value memory, layer by layer keys then values, with its shape `(layers, slots, heads, capacity,
    width, bytes an element)`."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        slots, heads, capacity, width = tensors[0].shape
        self.shape = (len(tensors) // 2, slots, heads, capacity, width, tensors[0].element_size())
        self.pieces = tuple(
            TensorBuffer(f"kv/{index // 2}/{'keys' if index % 2 == 0 else 'values'}", tensor)
            for index, tensor in enumerate(tensors)
        )


class Maintenance:
    """The hooks of an engine that an erasing agent calls, from its own thread."""

    def __init__(self, engine: Engine, dtype: str) -> None:
        self._engine = engine
        self._dtype = dtype
        self._files: dict[str, FileBuffer] = {}
        self._copied = 0

    def stop(self, seconds: float) -> None:
        """Drain, then drop weights and caches and give their pages back. Raises FaultError if requests in
        flight take longer; then the server goes on."""
        self._engine.pause(seconds)
        self._files.clear()
        self._copied = 0
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)

    def begin_file(self, name: str, size: int) -> memoryview:
        """Room for a file of the model. Raises FaultError for a name that is not one inside its folder."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise FaultError(f"'{name}' is not a file of a model.")
        try:
            self._files[name] = FileBuffer(name, size)
        except OSError as error:
            raise FaultError(f"{name} does not fit into memory: {error.strerror}.") from error
        return self._files[name].content

    def start(self) -> None:
        """Build the model from the files, point its weights at their buffers, and serve. Raises UsageError
        or FaultError when the files are not a model."""
        if not self._files:
            raise FaultError("No files came, so there is no model to serve.")
        with tempfile.TemporaryDirectory(dir=_MEMORY_FOLDER, prefix="ullage-model-") as folder:
            for name, file in self._files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.content)
            model = load_causal_lm(Path(folder), self._dtype)
        shared = sum(
            share_storage(model, file.memory)
            for name, file in self._files.items()
            if name.endswith(".safetensors")
        )
        held = {tensor.untyped_storage().data_ptr(): tensor.nbytes for tensor in model.parameters()}
        self._copied = sum(held.values()) - shared
        gc.collect()
        self._engine.resume(model)

    def abandon(self) -> None:
        """Nobody will start the server again soon: clients get an error."""
        self._engine.close_queue(
            "This server's memory was erased and the verifier has gone; it serves again when one reloads it."
        )

    def freeze(self, seconds: float) -> None:
        """Hold the engine between two steps. Raises FaultError."""
        self._engine.freeze(seconds)

    def thaw(self) -> bool:
        """Let it go on; whether it was still frozen."""
        return self._engine.thaw()

    def cache(self) -> CacheBuffers | None:
        """The key-value memory as it is; None without one. It only stands still while frozen."""
        cache = self._engine.cache_in_memory
        tensors = cache.tensors() if cache else ()
        return CacheBuffers(tensors) if tensors else None

    def tokens(self) -> Sequence[Sequence[int]]:
        """While frozen: what each slot of it stands for."""
        return self._engine.rows_in_memory()

    def copied(self) -> int:
        """Bytes of weights that the model holds a second time, in another precision than the files have."""
        return self._copied

    def weights(self) -> tuple[FileBuffer, ...]:
        """The buffers that hold weights, in order of name."""
        return tuple(file for name, file in sorted(self._files.items()) if name.endswith(".safetensors"))


def share_storage(model: Any, file: mmap.mmap) -> int:
    """Make parameters views of a safetensors file in memory; returns the bytes that are shared.

    The format: u64 little-endian header length, a JSON header with `dtype`, `shape` and `data_offsets`,
    then the data. A parameter whose type differs from the file's keeps its own copy.
    """
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    shared = 0
    for name, parameter in model.named_parameters():
        entry = header.get(name)
        if entry is None or _TYPES.get(entry["dtype"]) != parameter.dtype:
            continue
        start, end = entry["data_offsets"]
        size = parameter.element_size()
        at = 8 + length + start
        if at % size or (end - start) != parameter.numel() * size or list(parameter.shape) != entry["shape"]:
            continue
        view = torch.frombuffer(file, dtype=parameter.dtype, count=parameter.numel(), offset=at)
        parameter.data = view.view(parameter.shape)
        shared += end - start
    return shared
