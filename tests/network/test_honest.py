"""Honest traffic: every byte is explained, and the cap does not change that."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.network import lab
from ullage.network.isolation import isolate
from ullage.network.shaping import SMALL_BURST, Cap

pytestmark = lab.needs_namespaces
SERVER = [sys.executable, "-m", "tests.network.inside", "{port}"]


def test_every_byte_of_honest_traffic_is_explained(tmp_path: Path) -> None:
    with isolate(SERVER, Cap.both(1_000_000), confinement=lab.confinement()) as isolation:
        isolation.wait_until_listening(20)
        tap = lab.Tap(isolation, tmp_path)
        with lab.metered(isolation, tap) as result:
            for tokens in (1, 20, 3_000):
                tap.request(tokens, prompt=tokens)
            tap.disconnect()
            tap.request(5)
        tap.close()
    assert result.reasons == {}
    assert result.code == 0
    counted = result.document["bytes"]
    assert counted["total"] == counted["record"] + counted["overhead"] + counted["heartbeat"]
    assert counted["record"] > 20_000
    assert result.document["capture"] == {"lost_frames": 0, "unseen_bytes": 0, "counters_agree": True}
    assert result.claim("wire.unexplained_fraction")["value"] == 0
    for name in ("wire.egress_cap", "wire.ingress_cap"):  # read back from the kernel
        assert result.claim(name)["value"] == pytest.approx(1_000_000 + SMALL_BURST / 10, rel=1e-3)
    assert result.claim("wire.egress_rate")["value"] < 1_000_000


@pytest.mark.slow
def test_congestion_is_explained_and_the_cap_holds(tmp_path: Path) -> None:
    """Twelve answers at once over a narrow link: queues overflow, segments are repeated, all derivable."""
    rate = 60_000
    with isolate(SERVER, Cap.both(rate), confinement=lab.confinement()) as isolation:
        isolation.wait_until_listening(20)
        tap = lab.Tap(isolation, tmp_path)
        with lab.metered(isolation, tap, ["--limit", str(rate)]) as result:
            tap.request_many(12, tokens=4_000)
        tap.close()
    assert result.reasons == {}
    assert result.code == 0
    assert result.document["passed"]["worst_rate"] <= rate * 1.02
