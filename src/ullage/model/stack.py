"""The numerical stack's name: what must be equal for two machines to compute equal logits."""

from __future__ import annotations

import hashlib
import os

import rfc8785
import torch
import transformers

from ullage.model import instruction_set

# Settings of MKL that change the kernels it picks.
_MKL_VARIABLES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")


def describe_stack(dtype: str) -> dict[str, str]:
    """Torch build, its compiled-in libraries, and the instruction set in force.

    The number of threads is left out: for the built-in model, rows were bitwise equal over 1 and 2 threads on
    one build; for other shapes they differ by rounding, no more than with the batch's composition.
    """
    return {
        "attention": "sdpa",
        "build": torch.__config__.show().strip(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "dtype": dtype,
        "onednn_max_cpu_isa": os.environ.get(instruction_set.VARIABLE, ""),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **{name.lower(): os.environ.get(name, "") for name in _MKL_VARIABLES},
    }


def stack_digest(dtype: str) -> str:
    """`sha256:` of the description's canonical JSON (RFC 8785)."""
    return "sha256:" + hashlib.sha256(rfc8785.dumps(describe_stack(dtype))).hexdigest()
