"""Kernels are exact, or known not to be."""

import numpy as np
import pytest

from ullage.errors import FaultError
from ullage.work import kernels
from ullage.work.shape import MAX_INNER

EXACT = [name for name in kernels.CPU_KERNELS if name != "bfloat16"]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("inner", [64, 4160])
def test_exact_kernels(name: str, inner: int) -> None:
    assert kernels.is_exact(kernels.CPU_KERNELS[name], inner)


def test_the_largest_inner_dimension_is_exact() -> None:
    assert kernels.is_exact(kernels.int8, MAX_INNER)


def test_the_kernel_is_tested_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = []

    def exact(kernel: kernels.Kernel, inner: int) -> bool:
        tested.append(inner)
        return len(tested) > 1

    monkeypatch.setattr(kernels, "is_exact", exact)
    kernels.default_kernel.cache_clear()
    with pytest.raises(FaultError, match="not exact"):
        kernels.default_kernel(192)
    for _ in range(3):  # a refusal is not kept: it ends the process that it happens in, or is tried again
        kernels.default_kernel(192)
    kernels.default_kernel(256)
    assert tested == [192, 192, 256]
    kernels.default_kernel.cache_clear()  # these were not tested in truth


def test_a_rounding_kernel_is_refused() -> None:
    assert not kernels.is_exact(kernels.bfloat16, 2048)


def test_a_saturating_kernel_is_refused() -> None:
    def saturating(left: kernels.Int8, right: kernels.Int8) -> kernels.Int32:
        # Unsigned times signed in pairs that saturate at 16 bits (VPMADDUBSW), then the offset taken off.
        wide = right.astype(np.int64)
        pairs = (left.astype(np.int64) + 128)[:, None, :] * wide[None, :, :]
        halves = np.clip(pairs[..., 0::2] + pairs[..., 1::2], -32768, 32767)
        total: kernels.Int32 = (halves.sum(axis=2) - 128 * wide.sum(axis=1)).astype(np.int32)
        return total

    assert not kernels.is_exact(saturating, 64)
