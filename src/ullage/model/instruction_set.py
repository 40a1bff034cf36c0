"""How the CPU's matrix libraries behave, fixed before torch is loaded.

Two reasons. Some virtual machines announce AMX and refuse to run it, which ends a process with
"illegal instruction" at its first bfloat16 product. And a transcript can be re-derived bit for bit
only under the same instruction set, so a machine's newest one is not a good default for a reference.

Threads that wait for one another sleep instead of spinning: a server, a tap and their clients share
the same few cores here, and a spinning thread holds the core that the one it waits for needs. With two
cores and two other busy processes, decoding was 10 to 20 times slower with libgomp's default.

Tensors stand on huge pages where the system allows it: a memory verifier reads scattered blocks of a cache of
gigabytes against the clock, and on small pages each of them costs a walk through the page tables: 57
microseconds a step of 64 blocks instead of 30, where a disk takes 50.
"""

from __future__ import annotations

import os

VARIABLE = "ONEDNN_MAX_CPU_ISA"
DEFAULT = "AVX512_CORE_BF16"
_WAIT_POLICY = "OMP_WAIT_POLICY"
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def pin() -> str:
    """Cap oneDNN's instruction set unless the user chose one; returns what is in force.

    Has an effect only before torch is imported into this process.
    """
    os.environ.setdefault(_WAIT_POLICY, "PASSIVE")
    os.environ.setdefault(_HUGE_PAGES, "1")
    return os.environ.setdefault(VARIABLE, DEFAULT)
