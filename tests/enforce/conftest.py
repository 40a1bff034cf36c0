"""A tiny model, the reference made of it, and an enforcer in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.enforce.enforcer_process import EnforcerProcess
from tests.support.tiny_model import make_tiny_model
from ullage.enforce.reference import ChunkedReference

CHUNK = 16


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def reference(model_folder: Path) -> ChunkedReference:
    torch.set_num_threads(1)
    found = ChunkedReference.load(model_folder, chunk=CHUNK)
    found.find_batch(4)
    return found


@pytest.fixture(scope="module")
def enforcer(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnforcerProcess]:
    folder = tmp_path_factory.mktemp("enforcer")
    with EnforcerProcess(folder / "socket", model_folder, chunk=CHUNK) as process:
        yield process
        assert process.stop() == (0, "")
        assert not process.path.exists()
