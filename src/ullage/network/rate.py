"""A rate meter for links where nothing needs explaining: rack-to-rack cables held to a figure.

It samples the counters that our kernel keeps for our interfaces, so that its cost does not grow with the
rate; frames are not looked at. Heartbeats, caught by a filter, show that the link is the one that is meant
and that the counters move.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ullage.claims import Bound, Claim, Evidence, Trust, Window
from ullage.network.capture import Capture, InterfaceCounters, inject
from ullage.network.heartbeat import ETHERTYPE, INTERVAL_SECONDS, Heartbeat
from ullage.network.link import Link
from ullage.network.standing_cap import StandingCaps, cap_claims, read_caps
from ullage.network.windows import WINDOW_SECONDS

METHOD = "wire-rate/1"
_SAMPLE_SECONDS = 0.005


class CounterWindow:
    """The most by which a counter can have grown in any window of `length` seconds, from samples of it."""

    def __init__(self, length: float = WINDOW_SECONDS) -> None:
        self._length = length
        self._samples: deque[tuple[float, int]] = deque()
        self.first: tuple[float, int] | None = None
        self.last: tuple[float, int] = (0.0, 0)
        self.worst = 0

    def add(self, time: float, count: int) -> None:
        """Add a sample. A window between samples lies within the samples around it."""
        self.first = self.first or (time, count)
        self.last = (time, count)
        self._samples.append((time, count))
        # A window that begins after samples[1] and ends by now is covered from samples[1] on.
        previous = self._samples[-2][0] if len(self._samples) > 1 else time
        while len(self._samples) > 1 and self._samples[1][0] < previous - self._length:
            self._samples.popleft()
        self.worst = max(self.worst, count - self._samples[0][1])

    @property
    def rate(self) -> float:
        """Units a second over the worst window."""
        return self.worst / self._length

    @property
    def mean(self) -> float:
        """Units a second over all samples."""
        if self.first is None or self.last[0] <= self.first[0]:
            return 0.0
        return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])


@dataclass
class RateFindings:
    """Both directions of a link."""

    link: Link
    began: float
    ended: float
    offered: CounterWindow  # came in, before the cap
    received: CounterWindow  # came in and passed the cap
    sent: CounterWindow
    longest_pause: float  # between two samples
    heartbeat: Heartbeat
    caps: StandingCaps = field(default_factory=StandingCaps)

    @property
    def blind(self) -> bool:
        return not self.heartbeat.alive

    @property
    def worst_rate(self) -> float:
        """Bytes a second of the worst window in the worse direction."""
        return max(self.received.rate, self.sent.rate)

    def summary(self) -> dict[str, object]:
        return {
            "offered_worst_rate": self.offered.rate,
            "offered_mean_rate": self.offered.mean,
            "received_worst_rate": self.received.rate,
            "received_mean_rate": self.received.mean,
            "sent_worst_rate": self.sent.rate,
            "sent_mean_rate": self.sent.mean,
            "longest_pause": self.longest_pause,
            "heartbeats": self.heartbeat.seen,
        }

    def claims(self) -> tuple[Claim, ...]:
        """`wire.egress_rate` of the link, and the caps that stand."""
        trusts = (Trust.VERIFIER, Trust.PERIMETER)
        window = Window(start=str(int(self.began * 1e9)), end=str(int(self.ended * 1e9) + 1))
        return (
            Claim(
                name="wire.egress_rate",
                value=None if self.blind else self.worst_rate,
                unit="bytes/second",
                bound=Bound.UPPER,
                evidence=Evidence.NOT_COVERED if self.blind else Evidence.MEASURED,
                assumptions=(
                    f"worst window of {WINDOW_SECONDS:g} s that begins anywhere, the worse direction",
                    "whole Ethernet frames without preamble and check sequence, contents not looked at",
                ),
                trusts=trusts,
                subject=f"link {self.link.server.address} to {self.link.tap.address}",
                window=window,
                method=METHOD,
                sample=f"{self.ended - self.began:.1f} s, both directions",
            ),
            *cap_claims(self.caps, self.link, trusts, window),
        )


class RateMeter:
    """Samples the counters of an interface of the current network namespace."""

    def __init__(self, link: Link, interface: str, passed: str | None) -> None:
        """`passed`: the interface behind the cap, if there is one. Raises UllageError."""
        self._interface = interface
        self._passed = passed
        self._link = link
        self._capture = Capture(interface, blocks=2, ethertype=ETHERTYPE)
        self._sender = inject(interface)
        self._heartbeat = Heartbeat(link)
        self._offered, self._received, self._sent = CounterWindow(), CounterWindow(), CounterWindow()

    def run(self, stopped: Callable[[], bool]) -> RateFindings:
        """Sample until `stopped`. Raises UllageError."""
        caps = read_caps(self._interface, self._passed)
        began = beat = before = time.time()
        self._heartbeat.start(began)
        longest = 0.0
        while not stopped():
            now = self._sample()
            longest, before = max(longest, now - before), now
            for frame in self._capture.read():
                if frame.outgoing:
                    self._heartbeat.check(frame.data, frame.time)
            if now >= beat:
                self._beat()
                beat = now + INTERVAL_SECONDS
            time.sleep(_SAMPLE_SECONDS)
        ended = self._sample()
        self._heartbeat.gap_until(ended)
        received = self._received if self._passed else self._offered
        return RateFindings(
            self._link, began, ended, self._offered, received, self._sent, longest, self._heartbeat,
            caps.or_looser(read_caps(self._interface, self._passed)),
        )  # fmt: skip

    def close(self) -> None:
        self._sender.close()
        self._capture.close()

    def _sample(self) -> float:
        counters = InterfaceCounters.read(self._interface)
        now = time.time()
        self._offered.add(now, counters.received_bytes)
        self._sent.add(now, counters.sent_bytes)
        if self._passed:
            # What an intermediate device receives is what its queue, the cap, let go.
            self._received.add(time.time(), InterfaceCounters.read(self._passed).received_bytes)
        return now

    def _beat(self) -> None:
        try:
            self._sender.send(self._heartbeat.make())
        except OSError:
            return
