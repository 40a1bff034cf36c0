"""What makers say a device can do: int8 operations a second, dense. A multiply-add is two operations.

A calibration far below the data sheet is suspect (a throttled twin, a slow kernel); nothing gets to 100 %
of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
CALIBRATION_FLOOR = 0.7
"""A calibration below this share of the data sheet is failed."""


@dataclass(frozen=True)
class Device:
    """One kind of device. `operations_per_cycle` is for a physical core; 0 where `peak` says it whole."""

    name: str
    source: str
    peak: float = 0.0
    operations_per_cycle: int = 0


_VNNI512 = (
    "two 512-bit ports x 64 multiply-adds a cycle (VPDPBUSD): "
    "Intel 64 and IA-32 Architectures Optimization Reference Manual"
)
_AMX = (
    "16 x 16 x 64 multiply-adds in 16 cycles (TDPBUSD): Intel Optimization Reference Manual, chapter on AMX"
)
_DENSE = "NVIDIA data sheet, INT8 Tensor Core without sparsity"

CPUS: dict[tuple[str, int, int], Device] = {
    ("GenuineIntel", 6, 85): Device("Intel Xeon, Cascade Lake", _VNNI512, operations_per_cycle=256),
    ("GenuineIntel", 6, 106): Device("Intel Xeon, Ice Lake-SP", _VNNI512, operations_per_cycle=256),
    ("GenuineIntel", 6, 108): Device("Intel Xeon D, Ice Lake-D", _VNNI512, operations_per_cycle=256),
    ("GenuineIntel", 6, 143): Device("Intel Xeon, Sapphire Rapids", _AMX, operations_per_cycle=2048),
    ("GenuineIntel", 6, 207): Device("Intel Xeon, Emerald Rapids", _AMX, operations_per_cycle=2048),
}
GPUS: dict[str, Device] = {
    "A100": Device("NVIDIA A100", _DENSE, peak=624e12),
    "H100": Device("NVIDIA H100 SXM", _DENSE, peak=1979e12),
    "H200": Device("NVIDIA H200 SXM", _DENSE, peak=1979e12),
    "L4": Device("NVIDIA L4", _DENSE, peak=242.5e12),
    "L40S": Device("NVIDIA L40S", _DENSE, peak=733e12),
}


@dataclass(frozen=True)
class Nameplate:
    """What the data sheet allows the machine, and how that was reckoned."""

    device: str
    operations_per_second: float
    how: str


def cpu_nameplate(cores: int, cpuinfo: str, gigahertz: float | None = None) -> Nameplate | None:
    """For `cores` physical cores of the processor that this /proc/cpuinfo describes; None if unknown.

    The base clock comes from the model's name unless given. A virtual processor is often half a core,
    which its guest cannot see: the count of physical cores is an input.
    """
    pairs = (line.partition(":") for line in cpuinfo.split("\n\n", 1)[0].splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    try:
        key = (fields["vendor_id"], int(fields["cpu family"]), int(fields["model"]))
        name = fields["model name"]
    except (KeyError, ValueError):
        return None
    device = CPUS.get(key)
    clock = re.search(r"@ ([0-9.]{1,6})GHz", name)
    if gigahertz is None and clock:
        gigahertz = float(clock.group(1))
    if device is None or gigahertz is None:
        return None
    peak = cores * device.operations_per_cycle * gigahertz * 1e9
    how = f"{cores} cores x {device.operations_per_cycle} a cycle x {gigahertz:g} GHz; {device.source}"
    return Nameplate(device.name, peak, how)


def gpu_nameplate(count: int, name: str) -> Nameplate | None:
    """For GPUs whose driver calls them `name`; the longest known word in it decides."""
    # Whole words: an L40 is no L4.
    words = sorted(
        (word for word in GPUS if re.search(rf"\b{re.escape(word)}\b", name)), key=len, reverse=True
    )
    if not words:
        return None
    device = GPUS[words[0]]
    return Nameplate(device.name, count * device.peak, f"{count} x {device.peak:.4g}; {device.source}")


def read_cpuinfo() -> str:
    """Of this machine; empty where there is none."""
    try:
        return _CPUINFO.read_text("utf-8", "replace")
    except OSError:
        return ""
