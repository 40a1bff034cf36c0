"""The code that how-to pages print does what they say of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.docs.pages import blocks
from tests.redteam.game import played
from ullage.redteam.tokens.game import Size
from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters

V = 40


def module(page: str, folder: Path) -> ModuleType:
    """The page's one block of Python as a module of its own."""
    (text,) = blocks(page, "python")
    path = folder / f"{Path(page).stem.replace('-', '_')}.py"
    path.write_text(text, "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_printed_adversary_leaks_and_its_bound_holds(tmp_path: Path) -> None:
    found = played(module("how-to/add-an-adversary.md", tmp_path).ADVERSARY, Size(16, 8))
    assert found.priced.mismatches > 0  # it deviates, which is what gives it away
    assert found.game.decoded_bits >= 6  # of 16; half of them would agree by chance
    assert found.game.decoded_bits <= found.bound + 10


def test_the_printed_profile_agrees_with_its_definition_in_any_batch(tmp_path: Path) -> None:
    profile = module("how-to/add-a-sampler-profile.md", tmp_path).Sha256Gumbel()
    logits = np.random.default_rng(0).standard_normal((6, V)).astype(np.float32)
    address = NoiseAddress.of_response(7, 5, 6)
    noise = profile.noise(address, V).at(np.arange(6)[:, None], np.arange(V)[None])
    for parameters in (SamplingParameters(), SamplingParameters(0.7, 0.9, 12)):
        chosen = profile.choose(logits, parameters, address)
        scores = profile.score(logits, chosen, parameters, address)
        assert (scores.margin == 0).all()
        assert (scores.rank == 0).all()
        for row in range(6):
            one = NoiseAddress.of_response(7, 5, 1, first_step=row)
            assert profile.choose(logits[row : row + 1], parameters, one)[0] == chosen[row]
    plain = profile.choose(logits, SamplingParameters(), address)
    assert plain.tolist() == (logits.astype(np.float64) + noise).argmax(axis=1).tolist()


@pytest.mark.parametrize("page", ["how-to/add-an-adversary.md", "how-to/add-a-sampler-profile.md"])
def test_there_is_one_block(page: str) -> None:
    assert len(blocks(page, "python")) == 1
