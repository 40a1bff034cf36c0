"""Settings that every test shares."""

import os

import pytest
from hypothesis import settings

from tests.again import pytest_runtest_protocol
from ullage.model import instruction_set

__all__ = ["pytest_collection_modifyitems", "pytest_runtest_protocol"]

instruction_set.pin()
os.environ["ULLAGE_TRACEBACK"] = "1"  # of the processes that tests start: a defect says where it is

# Examples that take long on a busy machine say nothing about the code; pytest-timeout ends what hangs.
settings.register_profile("ullage", deadline=None)
settings.load_profile("ullage")

# Tests of these folders change the machine itself (network namespaces, locked memory): one after another.
_ALONE = {"network", "memory"}


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of its own, which would come first
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests stay on one worker: those of a file, which share servers, and those of some folders."""
    for item in items:
        folder = item.path.parent.name
        group = folder if folder in _ALONE else f"{folder}/{item.path.stem}"
        item.add_marker(pytest.mark.xdist_group(group))
