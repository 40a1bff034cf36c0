"""A link that goes down or away under the meter: no spinning, and what was seen is not lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from pyroute2 import IPRoute

from tests.network import lab
from tests.network.samples import link
from ullage.network import namespaces
from ullage.network.cable import interface_index, netlink
from ullage.network.capture import Capture, inject
from ullage.network.monitor import LiveMeter, Sources
from ullage.network.namespaces import NetworkNamespace

pytestmark = lab.needs_namespaces
WAIT = 0.2


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    """A namespace with a pair of interfaces, `near` and `far`."""
    made = namespaces.create("peer", namespaces.new_token())
    try:
        made.run(_pair)
        yield made
    finally:
        made.remove()


def _pair() -> None:
    def add(route: IPRoute) -> None:
        route.link("add", ifname="near", kind="veth", peer={"ifname": "far"})
        for name in ("near", "far"):
            route.link("set", index=interface_index(route, name), state="up")

    netlink("a pair", add)


def _set(state: str) -> None:
    netlink(state, lambda route: route.link("set", index=interface_index(route, "near"), state=state))


def _remove() -> None:
    netlink("removal", lambda route: route.link("del", index=interface_index(route, "near")))


@pytest.mark.parametrize("change", [lambda: _set("down"), _remove], ids=["down", "away"])
def test_a_capture_on_a_dead_link_sleeps(namespace: NetworkNamespace, change: Callable[[], None]) -> None:
    def waits() -> list[float]:
        with Capture("near", blocks=2) as capture:
            change()
            found = []
            for _ in range(3):
                began = time.monotonic()
                capture.wait(WAIT)
                found.append(time.monotonic() - began)
            return found

    assert min(namespace.run(waits)) >= 0.9 * WAIT


def test_a_capture_goes_on_when_the_link_is_up_again(namespace: NetworkNamespace) -> None:
    def run() -> tuple[float, int]:
        with Capture("near", blocks=2) as capture:
            _set("down")
            capture.wait(WAIT)
            _set("up")
            began = time.monotonic()
            for _ in range(4):
                list(capture.read())
                capture.wait(WAIT)
            waited = time.monotonic() - began
            with inject("near") as sender:
                sender.send(bytes(60))
            for _ in range(20):
                capture.wait(WAIT)
                if list(capture.read()):
                    break
            return waited, capture.frames

    waited, frames = namespace.run(run)
    assert waited >= WAIT
    assert frames >= 1


def test_findings_outlive_the_interface(namespace: NetworkNamespace) -> None:
    def run() -> tuple[int, bool | None]:
        meter = LiveMeter(link(), "near", None, Sources())
        until = time.monotonic() + 0.6
        gone: list[bool] = []

        def stopped() -> bool:
            if time.monotonic() > until - 0.3 and not gone:
                _remove()
                gone.append(True)
            return time.monotonic() > until

        findings = meter.run(stopped, lambda _: None)
        meter.close()
        return findings.meter.to_server.frames, findings.counters_agree

    frames, agree = namespace.run(run)
    assert frames >= 1
    assert agree is False
