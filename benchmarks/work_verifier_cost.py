"""What checking costs against what doing costs: `python benchmarks/work_verifier_cost.py [--repeats 5]`.

For square units of n = 512 … 4,096: the prover's time (fastest exact kernel, generation and commitment), the
verifier's for one opened row, and for the full check. Processor time of one thread, all in one run, the
smallest of the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ullage.work import freivalds
from ullage.work.commitment import commit
from ullage.work.kernels import CPU_KERNELS, int8, is_exact
from ullage.work.openings import row_is_committed, true_rows
from ullage.work.operands import left_rows, right_columns
from ullage.work.shape import CPU_SHAPE, Shape


def smallest(action: Callable[[], object], repeats: int) -> float:
    action()
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        action()
        times.append(time.thread_time() - start)
    return min(times)


def measure(shape: Shape, repeats: int) -> dict[str, float | str]:
    seed = os.urandom(32)
    left, right = left_rows(seed, shape, 0, shape.rows), right_columns(seed, shape)
    kernels = {n: CPU_KERNELS[n] for n in ("int8", "int8-rows") if is_exact(CPU_KERNELS[n], shape.inner)}
    times = {name: smallest(partial(kernel, left, right), repeats) for name, kernel in kernels.items()}
    fastest = min(times, key=lambda name: times[name])
    kernel = int8  # the verifier's, which reads B as it is made
    product = kernel(left, right)
    kept = commit(product)

    def generate() -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        return left_rows(seed, shape, 0, shape.rows), right_columns(seed, shape)

    def opening() -> bool:
        row = true_rows(seed, shape, [7], kernel)[0]
        return row_is_committed(row, 7, shape, path, root)

    def full() -> bool:
        return freivalds.check(*generate(), product, shape, kernel)

    path, root = kept.prove(7), kept.root  # the verifier has the root: it came with the unit
    assert opening()
    assert full()
    steps = {
        "generate": smallest(generate, repeats),
        "commit": smallest(lambda: commit(product).root, repeats),
        "opening": smallest(opening, repeats),
        "full": smallest(full, repeats),
    }
    unit = times[fastest] + steps["generate"] + steps["commit"]
    return {
        "shape": str(shape),
        "kernel": fastest,
        "product_ms": times[fastest] * 1e3,
        **{f"{name}_ms": seconds * 1e3 for name, seconds in steps.items()},
        "opening_over_product": steps["opening"] / times[fastest],
        "full_over_product": steps["full"] / times[fastest],
        "opening_over_unit": steps["opening"] / unit,
        "full_over_unit": steps["full"] / unit,
        "wire_bytes_per_compute_second": 90 / unit,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plot", help="write the ratios as an SVG here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shapes = [Shape(n, n, n) for n in (512, 1024, 2048, 4096)] + [CPU_SHAPE]
    rows = []
    for shape in shapes:
        rows.append(measure(shape, arguments.repeats))
        print(
            json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}),
            flush=True,
        )
    if arguments.plot:
        plot(rows[:4], arguments.plot)


def plot(rows: list[dict[str, float | str]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = [int(str(row["shape"]).split(",")[0]) for row in rows]
    figure, axes = plt.subplots(figsize=(7.5, 4), layout="constrained")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for check, colour in (("opening", "#2a6f97"), ("full", "#b5541c")):
        for other, line, beside in (("product", "-", "bottom"), ("unit", "--", "top")):
            shares = [float(row[f"{check}_over_{other}"]) for row in rows]
            axes.plot(sizes, shares, line, color=colour, marker="o")
            name = "one row" if check == "opening" else "full check"
            axes.annotate(f"  {name} / {other}", (sizes[-1], shares[-1]), color=colour, va=beside)
    middle = float(rows[1]["opening_over_product"])
    axes.plot(sizes, [middle * sizes[1] / n for n in sizes], ":", color="grey")
    axes.annotate("1/n  ", (sizes[0], middle * sizes[1] / sizes[0]), color="grey", ha="right")
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.minorticks_off()
    axes.set_xlim(sizes[0] * 0.75, sizes[-1] * 2.8)
    axes.set_xlabel("n, of a product of n x n and n x n")
    axes.set_ylabel("verifier / prover")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
