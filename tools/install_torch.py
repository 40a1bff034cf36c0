"""Install the CPU build of torch, and stop before several gigabytes of CUDA arrive unasked.

    python tools/install_torch.py cpu|cuda [pip arguments...]

On Linux the default index serves torch with CUDA libraries; elsewhere it serves a CPU build. What
would be installed is asked of pip first (`--dry-run --report`), so the answer fits every index,
mirror and constraint that pip is configured with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

REQUIREMENT = "torch==2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS_FOR_A_SIZE = 10


def installed() -> bool:
    probe = "import importlib.metadata as m; print(m.version('torch').split('+')[0])"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    return found.stdout.strip() == REQUIREMENT.split("==")[1]


def planned(arguments: list[str]) -> list[dict[str, object]]:
    """What pip would install, from its own report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", str(report)]
        subprocess.run([*command, *arguments, REQUIREMENT], check=True)
        plan: list[dict[str, object]] = json.loads(report.read_text())["install"]
        return plan


def download_bytes(entry: dict[str, object]) -> int:
    """Size of one planned download, 0 where the index does not tell."""
    url = str(entry["download_info"]["url"])  # type: ignore[index]
    if not url.startswith(("http://", "https://")):
        return 0
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 (checked above)
        with urllib.request.urlopen(request, timeout=SECONDS_FOR_A_SIZE) as response:  # noqa: S310
            return int(response.headers.get("Content-Length", 0))
    except (urllib.error.URLError, TimeoutError, ValueError):
        return 0


def refuse_cuda(plan: list[dict[str, object]]) -> None:
    names = {str(entry["metadata"]["name"]): entry for entry in plan}  # type: ignore[index]
    if not any(name.startswith(("nvidia-", "cuda-", "triton")) for name in names):
        return
    total = sum(download_bytes(entry) for entry in plan)
    size = f"{total / 1e9:.1f} GB" if total else "several GB"
    sys.exit(
        f"\nSet-up stopped: this index would install torch with CUDA, {len(plan)} packages, {size}.\n"
        f"For a machine without a GPU:   make venv PIP_ARGS='--extra-index-url {CPU_INDEX}'\n"
        f"If you want the CUDA build:    make venv TORCH=cuda\n"
    )


def main() -> None:
    build, arguments = sys.argv[1], sys.argv[2:]
    if build not in ("cpu", "cuda"):
        sys.exit("TORCH is 'cpu' or 'cuda'.")
    if installed():
        print(f"      {REQUIREMENT} is installed already", flush=True)
        return
    if build == "cpu":
        refuse_cuda(planned(arguments))
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments, REQUIREMENT], check=True)


if __name__ == "__main__":
    main()
