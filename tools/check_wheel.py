"""Builds the wheel twice, compares the bytes, and tries it in a fresh environment without a compiler.

python tools/check_wheel.py [--out dist] [--pip-args "--extra-index-url URL"]

First what needs no extra (no torch, no pyarrow), then `ullage bound` with the extra of that name. Ends with
1 and a sentence where something does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PLAIN = (
    "--version", "--help", "keys init keys", "tap --help", "log verify --help", "log witness --help",
    "scan README", "completion bash", "doctor --json", "memory erase --help", "watch --help",
    "slowdown --samples 50", "fleet --racks 100",
)  # fmt: skip
_SCORES = """
import pyarrow as pa, pyarrow.parquet as pq
table = pa.table({"record": [0] * 4, "token": [5, 6, 7, 8], "reference": [5, 6, 7, 9]})
pq.write_table(table, "scores.parquet")
"""
_EMPTY_PATH = "no-compiler"


def main() -> int:
    """Build, compare, install, run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--pip-args", default="")
    options = parser.parse_args()
    more = shlex.split(options.pip_args)
    wheel = build_twice(options.out, more)
    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes, twice the same, sha256 {digest(wheel)}")
    with tempfile.TemporaryDirectory() as folder:
        try_out(wheel, Path(folder), more)
    print("installed without a compiler; every command that was tried runs without torch")
    return 0


def build_twice(out: Path, more: list[str]) -> Path:
    """The wheel, in `out`. Exits where two builds of one commit differ."""
    asked = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    epoch = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in ("one", "two"):
            target = Path(folder) / turn
            _run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "wheel",
                    "--quiet",
                    "--no-deps",
                    *more,
                    "-w",
                    str(target),
                    str(ROOT),
                ],
                env=os.environ | {"SOURCE_DATE_EPOCH": epoch},
            )
            made.append(next(target.glob("*.whl")))
        if digest(made[0]) != digest(made[1]):
            sys.exit("Two builds of one commit differ.")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(made[0], out))


def try_out(wheel: Path, folder: Path, more: list[str]) -> None:
    """Install into a new environment in `folder`, and run what has to run there."""
    venv.create(folder / "venv", with_pip=True)
    python, ullage = folder / "venv" / "bin" / "python", folder / "venv" / "bin" / "ullage"
    (folder / "README").write_text("nothing is hidden here\n", "utf-8")
    # Nothing that could compile is found: a source archive in the way ends here.
    bare = {"PATH": str(folder / _EMPTY_PATH), "HOME": str(folder)}
    install = [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *more]
    _run([*install, str(wheel)], env=os.environ | bare)
    for line in _PLAIN:
        _run([str(ullage), *line.split()], cwd=folder, env=bare)
    refused = subprocess.run(
        [ullage, "audit", "nothing"], cwd=folder, env=bare, capture_output=True, text=True, check=False
    )
    if "Traceback" in refused.stderr or "ullage[audit]" not in refused.stderr:
        sys.exit(f"`ullage audit` without its extra does not say which one it needs:\n{refused.stderr}")
    _run([*install, f"{wheel}[bound]"], env=os.environ | bare)
    _run([str(python), "-c", _SCORES], cwd=folder, env=bare)
    _run([str(ullage), "bound", "scores.parquet", "--vocabulary", "100"], cwd=folder, env=bare)
    if subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 0:
        sys.exit("torch was installed, though nobody asked for it.")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
