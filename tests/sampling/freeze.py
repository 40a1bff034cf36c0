"""Writes golden/own-vectors.json: `python -m tests.sampling.freeze`. Run once a new profile exists, never to
make a failing test pass: a profile's name stands for these numbers.

Logits are exact in float32 (multiples of 1/8), so that the file holds all of the input. The numbers
are this package's own output, frozen; what ties them to the definitions are the tests against slow.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile

PATH = Path(__file__).parent / "golden" / "own-vectors.json"
PROFILES = (
    "murmur3-gumbel/f64",
    "murmur3-gumbel-53/f64",
    "torch-exponential",
    "inverse-transform",
    "greedy",
)
SEEDS = (0, 7, 2147483653, 4611686018427387915, 2**63 - 1)
SETTINGS = (
    SamplingParameters(),
    SamplingParameters(0.7),
    SamplingParameters(0.8, 0.9, 5),
    SamplingParameters(1.3, 0.6),
)


def rows() -> list[dict[str, Any]]:
    """One row a (profile, parameters, seed): what `choose` says, and `score` of the next token id."""
    generator = np.random.default_rng(3)
    frozen = []
    for name in PROFILES:
        for parameters in SETTINGS[:1] if name == "greedy" else SETTINGS:
            for number, seed in enumerate(SEEDS):
                width = (8, 64)[number % 2]
                logits = (np.round(generator.standard_normal((1, width)) * 24) / 8).astype(np.float32)
                address = NoiseAddress.of_response(seed, 5, 1, first_step=number)
                token = get_profile(name).choose(logits, parameters, address)
                claimed = (token + 1) % width
                scores = get_profile(name).score(logits, claimed, parameters, address, entropy=True)
                frozen.append(
                    {
                        "profile": name,
                        "parameters": parameters.to_record(),
                        "seed": str(seed),
                        "prompt_length": 5,
                        "step": number,
                        "logits": logits[0].tolist(),
                        "token": int(token[0]),
                        "claimed": int(claimed[0]),
                        "margin": float(scores.margin[0]) if np.isfinite(scores.margin[0]) else None,
                        "rank": int(scores.rank[0]),
                        "entropy": float(scores.entropy[0]),
                    }
                )
    return frozen


if __name__ == "__main__":
    PATH.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows()) + "\n]\n")
