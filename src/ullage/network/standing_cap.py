"""The cap as this machine's kernel says that it stands: read back, not taken from who set it.

What was metered says what a server did; what it can do is this. Read when a meter begins and when it ends,
and the looser of both counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyroute2 import IPRoute

from ullage.claims import Bound, Claim, Evidence, Trust, Window
from ullage.errors import FaultError
from ullage.network.cable import interface_index, netlink
from ullage.network.link import Link
from ullage.network.windows import WINDOW_SECONDS

METHOD = "standing-cap/1"
_ROOT = 0xFFFF_FFFF
_TICK_SECONDS = 64e-9  # of the kernel's packet scheduler


@dataclass(frozen=True)
class StandingCap:
    """A token bucket filter: bytes a second, and how many may pass at once."""

    rate: float
    burst: float

    @property
    def bytes_a_second(self) -> float:
        """The most that passes in a window of ten seconds, over its length."""
        return self.rate + self.burst / WINDOW_SECONDS


@dataclass(frozen=True)
class StandingCaps:
    """Both directions of a link; None where no filter stands."""

    from_server: StandingCap | None = None
    to_server: StandingCap | None = None

    def or_looser(self, other: StandingCaps) -> StandingCaps:
        """What held all the time between two readings, if nothing was looser in between."""
        return StandingCaps(
            _looser(self.from_server, other.from_server), _looser(self.to_server, other.to_server)
        )


def read_caps(interface: str, passed: str | None) -> StandingCaps:
    """The filters on the tap's end of the cable and on the interface behind which frames have passed.

    An interface that is gone has none. Raises nothing: who cannot read a cap has not seen one.
    """
    return StandingCaps(None if passed is None else _read(passed), _read(interface))


def cap_claims(
    caps: StandingCaps, link: Link, trusts: tuple[Trust, ...], window: Window | None
) -> tuple[Claim, ...]:
    """`wire.egress_cap` and `wire.ingress_cap`, where there is one."""
    found = (("wire.egress_cap", caps.from_server), ("wire.ingress_cap", caps.to_server))
    return tuple(
        Claim(
            name=name,
            value=cap.bytes_a_second,
            unit="bytes/second",
            bound=Bound.UPPER,
            evidence=Evidence.PROVEN,
            assumptions=(
                f"the kernel's token bucket filter of {cap.rate:.0f} bytes/s and {cap.burst:.0f} bytes at "
                "once, read when the meter began and when it ended, stood in between",
                "every frame of this direction passes through it: the link is the only one",
            ),
            trusts=trusts,
            subject=f"link {link.server.address} to {link.tap.address}",
            window=window,
            method=METHOD,
            sample=f"windows of {WINDOW_SECONDS:g} s; whole Ethernet frames",
        )
        for name, cap in found
        if cap is not None
    )


def _looser(one: StandingCap | None, other: StandingCap | None) -> StandingCap | None:
    if one is None or other is None:
        return None
    return StandingCap(max(one.rate, other.rate), max(one.burst, other.burst))


def _read(interface: str) -> StandingCap | None:
    def root(route: IPRoute) -> StandingCap | None:
        for queue in route.get_qdiscs(index=interface_index(route, interface)):
            if queue["parent"] == _ROOT and queue.get_attr("TCA_KIND") == "tbf":
                values = queue.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
                rate = float(values["rate"])
                return StandingCap(rate, rate * values["buffer"] * _TICK_SECONDS)
        return None

    try:
        found: StandingCap | None = netlink("a look at the cap", root)
    except FaultError:
        return None
    return found
