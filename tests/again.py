"""Once more what failed while the hypervisor took the processors away.

Tests of deadlines and of who came first mean nothing on a machine that stands still for seconds. As an
account says "cannot tell" of such a window, a test that failed in one is run again, once, when it is over,
and a warning says so. A failure on a machine that is left alone stays one, and so does a second. Properties
that hypothesis looks for counterexamples of do not hang on time, and one counterexample is enough.
"""

from __future__ import annotations

import time

import pytest
from _pytest.runner import runtestprotocol

from ullage.work.steal import Ticks, read

LIMIT = 0.1
"""Of a machine's time: above that deadlines are not the program's."""
_PATIENCE = 90.0
_LOOK = 3.0


def was_disturbed(before: Ticks | None, after: Ticks | None) -> bool:
    """Whether the hypervisor took more than the limit between the two."""
    return before is not None and after is not None and after.share_since(before) > LIMIT


def is_property(item: pytest.Item) -> bool:
    """Whether hypothesis makes its examples."""
    return bool(getattr(getattr(item, "obj", None), "is_hypothesis_test", False))


def wait_for_calm() -> None:
    """Until the machine is left alone for some seconds, or patience ends."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        before = read()
        time.sleep(_LOOK)
        if not was_disturbed(before, read()):
            return


@pytest.hookimpl
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """The runner's own, but for a second try."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    before = read()
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    failed = any(report.failed and report.when == "call" for report in reports)
    if failed and not is_property(item) and was_disturbed(before, read()):
        item.warn(pytest.PytestWarning("failed while the hypervisor took the processors; run again"))
        wait_for_calm()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
