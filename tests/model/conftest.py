"""One small model for all tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))
