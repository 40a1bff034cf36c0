"""Base64Bench against its scripted controls, each a process of its own.

    python benchmarks/monitor_base64.py [--each 5] [--plots docs/images]

Prints Markdown: a perfect endpoint, one that gets 2 % of the characters wrong, one that declines every third
question. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from ullage.monitor.base64_run import Settings, run
from ullage.monitor.base64_score import items
from ullage.monitor.base64_tables import plot, table

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Start, ask, print, stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--each", type=int, default=5)
    parser.add_argument("--plots", type=Path, help="folder for base64bench-NAME.svg")
    given = parser.parse_args()
    for script in ("perfect", "noisy", "refusing"):
        command = [sys.executable, "-m", "tests.monitor.scripted_endpoint", script]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "scores.jsonl"
                results = run(Settings(url), items(given.each), path, lambda done, total: None)
            process.terminate()
        print(f"\n### {script}\n\n{table(results.scores)}")
        if given.plots is not None:
            plot(results.scores, given.plots / f"base64bench-{script}.svg")


if __name__ == "__main__":
    main()
