"""Ways to multiply int8 matrices exactly. A unit is worth the time of the fastest of them.

Every kernel takes A (M, K) and the transpose of B (N, K), int8, and gives C (M, N), int32. Whether it is
exact on this machine is tested, not assumed: some instruction sets saturate, some libraries round.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ullage.errors import FaultError

if TYPE_CHECKING:
    import torch

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Kernel = Callable[[Int8, Int8], Int32]

_FLOAT32_INNER = 1024
"""1024 * 2^14 = 2^24: float32 sums over that many products are integers that it holds."""
_PACKED_INNER = 2048
_PACKED_BITS = 27
"""A sum is at most 2048 * 2^14 = 2^25: less than half of 2^27, and 2^(25 + 27) + 2^25 < 2^53 holds both."""


def int8(left: Int8, right: Int8, device: str = "cpu") -> Int32:
    """torch's int8 product with int32 sums, B as it is made (columns contiguous)."""
    import torch

    product = torch._int_mm(_tensor(left, device), _tensor(right, device).t())
    return product.cpu().numpy()


def int8_rows(left: Int8, right: Int8) -> Int32:
    """The same with B laid out by rows first, as some libraries prefer; the copy is part of the time."""
    import torch

    return torch._int_mm(_tensor(left), _tensor(right).t().contiguous()).numpy()


def float32(left: Int8, right: Int8) -> Int32:
    """float32 products over pieces of the inner dimension that are exact, summed in int32."""
    import torch

    a, b = _tensor(left), _tensor(right)
    total = torch.zeros((len(left), len(right)), dtype=torch.int32)
    for start in range(0, left.shape[1], _FLOAT32_INNER):
        piece = slice(start, start + _FLOAT32_INNER)
        total += (a[:, piece].float() @ b[:, piece].float().t()).to(torch.int32)
    return total.numpy()


def packed_float64(left: Int8, right: Int8) -> Int32:
    """Two rows of A in one float64, 27 bits apart: one multiplication for two products."""
    import torch

    if len(left) % 2:
        raise ValueError("rows are packed in pairs")
    a, b = _tensor(left), _tensor(right)
    upper, lower = a[0::2], a[1::2]
    total = torch.zeros((len(left), len(right)), dtype=torch.int32)
    unit = float(1 << _PACKED_BITS)
    for start in range(0, left.shape[1], _PACKED_INNER):
        piece = slice(start, start + _PACKED_INNER)
        packed = (upper[:, piece].double() * unit + lower[:, piece].double()) @ b[:, piece].double().t()
        high = torch.round(packed / unit)
        total[0::2] += high.to(torch.int32)
        total[1::2] += (packed - high * unit).to(torch.int32)
    return total.numpy()


def bfloat16(left: Int8, right: Int8) -> Int32:
    """torch's bfloat16 product. Its output is rounded to 8 bits, so the test of exactness refuses it."""
    import torch

    product = _tensor(left).bfloat16() @ _tensor(right).bfloat16().t()
    return product.float().to(torch.int32).numpy()


CPU_KERNELS: dict[str, Kernel] = {
    "int8": int8,
    "int8-rows": int8_rows,
    "float32": float32,
    "packed-float64": packed_float64,
    "bfloat16": bfloat16,
}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Products of this thread are computed by it alone."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_exact(kernel: Kernel, inner: int, size: int = 32) -> bool:
    """Whether the kernel agrees with int64 arithmetic on random and on extreme operands of this K."""
    generator = np.random.default_rng(20_480)
    top, low = (np.full((size, inner), entry, dtype=np.int8) for entry in (127, -128))
    random = generator.integers(-128, 127, (2, size, inner), np.int8, endpoint=True)
    mixed = np.where(random[0] < 0, low, top)
    pairs = [(top, top), (top, low), (low, low), (random[0], random[1]), (mixed, random[1]), (mixed, mixed)]
    for left, right in pairs:
        # float64 is exact here: sums stay below 2^53.
        expected = (left.astype(np.float64) @ right.astype(np.float64).T).astype(np.int64)
        if not np.array_equal(kernel(left, right).astype(np.int64), expected):
            return False
    return True


@cache
def default_kernel(inner: int, device: str = "cpu") -> Kernel:
    """The kernel that prover and verifier use, tested on this machine.

    Once in a process, so that a slot that was lost is back at once.

    Raises FaultError if it is not exact.
    """

    def chosen(left: Int8, right: Int8) -> Int32:
        return int8(left, right, device)

    if not is_exact(chosen, inner):
        raise FaultError(
            "torch._int_mm is not exact on this machine, so products could neither be made nor checked; "
            "use a torch build for this processor."
        )
    return chosen


def _tensor(entries: Int8, device: str = "cpu") -> torch.Tensor:
    import torch

    return torch.from_numpy(entries).to(device)
