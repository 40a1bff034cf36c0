"""A meter on a live link: capture, heartbeats, the kernel's own counters, the tap's journal and log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ullage.errors import UsageError
from ullage.log.notes.signed_note import NoteVerifier
from ullage.network.capture import Capture, InterfaceCounters, inject
from ullage.network.heartbeat import INTERVAL_SECONDS, Heartbeat
from ullage.network.journal import HeaderEntry, JournalReader
from ullage.network.link import Link
from ullage.network.meter import Meter
from ullage.network.pcap import read_capture
from ullage.network.records import RecordBook
from ullage.network.sign_of_life import SignOfLife
from ullage.network.standing_cap import StandingCaps, read_caps
from ullage.network.windows import WorstWindow

_PATIENCE = 0.05
_SETTLE_INTERVAL = 0.25
_CALM_ROUNDS = 40


@dataclass
class Findings:
    """What a run of the meter found. Bytes are those of whole frames, Ethernet headers included."""

    meter: Meter
    passed: WorstWindow | None = None  # what left the cap, if there is a point behind it
    passed_bytes: int = 0
    passed_drops: int = 0
    drops: int = 0  # frames that did not fit the capture's ring
    unseen_bytes: int = 0  # counted by the interface, never captured
    counters_agree: bool | None = None  # None: there were none to compare with
    heartbeat: Heartbeat | None = None
    caps: StandingCaps = field(default_factory=StandingCaps)
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def blind(self) -> bool:
        """Whether the meter cannot show that it was awake all the time."""
        return self.heartbeat is not None and not self.heartbeat.alive


@dataclass
class Sources:
    """What explains bytes: the tap's journal and log, either of which may be missing."""

    journal: JournalReader | None = None
    records: RecordBook | None = None
    key: NoteVerifier | None = None  # of the log; None: what its journal says is believed

    def poll(self, meter: Meter) -> None:
        """Hand on what is new. Raises UsageError, IntegrityError, FaultError."""
        if self.records is not None:
            self.records.poll()
        if self.journal is not None:
            for entry in self.journal.poll():
                if isinstance(entry, HeaderEntry):
                    self._check_same(entry.log_id)
                meter.note(entry)
        meter.settle()

    def digests(self) -> dict[str, str]:
        """What the explanations rest on. With a key, the log is checked. Raises IntegrityError,
        UndecidedError.
        """
        inputs = {}
        if self.journal is not None:
            inputs["wire_journal"] = "sha256:" + self.journal.digest.hexdigest()
        if self.records is not None:
            inputs["log_id"] = self.records.header.log_id
            if self.key is not None:
                inputs["log_root"] = self.records.verify(self.key)
        return inputs

    def _check_same(self, log_id: str) -> None:
        if self.records is not None and self.records.header.log_id != log_id:
            raise UsageError(
                f"The wire journal is of the log {log_id}, the folder given holds "
                f"{self.records.header.log_id}; give the journal and the log of one tap."
            )


def meter_file(path: Path, link: Link, sources: Sources) -> Findings:
    """Meter a capture file. There are no heartbeats and no counters in it. Raises UllageError."""
    meter = Meter(link, sources.records)
    findings = Findings(meter)
    for frame in read_capture(path):
        if len(frame.data) < frame.length:
            meter.lost(frame.length, 1, frame.time)
        else:
            meter.feed(frame.data, frame.time, None if frame.outgoing is None else not frame.outgoing)
    sources.poll(meter)
    meter.finish()
    findings.inputs = sources.digests()
    return findings


class LiveMeter:
    """Meters an interface of the current network namespace until it is told to stop."""

    def __init__(
        self,
        link: Link,
        interface: str,
        passed: str | None,
        sources: Sources,
        alive: SignOfLife | None = None,
    ) -> None:
        """`passed`: the interface behind the cap, whose frames are only counted; `alive`: what a tap looks
        at. Raises UllageError.
        """
        self._alive = alive
        self._interface = interface
        self._sources = sources
        self._heartbeat = Heartbeat(link)
        self._meter = Meter(link, sources.records, self._heartbeat)
        self._capture, self._base, self._counters_exact = _open_counted(interface)
        self._passed = Capture(passed) if passed else None
        self._sender = inject(interface)
        self._behind_cap = passed
        self.findings = Findings(
            self._meter,
            WorstWindow() if passed else None,
            heartbeat=self._heartbeat,
            caps=read_caps(interface, passed),
        )

    def run(
        self, stopped: Callable[[], bool], tell: Callable[[Findings], None], every: float = 10.0
    ) -> Findings:
        """Meter until `stopped`; `tell` hears how it stands every so many seconds. Raises UllageError."""
        now = time.time()
        self._heartbeat.start(now)
        beat = settled = now
        told = now + every
        while not stopped():
            self._capture.wait(_PATIENCE)
            self._drain()
            now = time.time()
            if now >= beat:
                self._beat()
                beat = now + INTERVAL_SECONDS
            if self._alive is not None and self._heartbeat.fresh(now):
                self._alive.beat(now)
            if now - settled >= _SETTLE_INTERVAL:
                self._sources.poll(self._meter)
                settled = now
            if now >= told:
                tell(self.findings)
                told = now + every
        return self._end()

    def close(self) -> None:
        self._sender.close()
        self._capture.close()
        if self._alive is not None:
            self._alive.close()
        if self._passed is not None:
            self._passed.close()

    def _beat(self) -> None:
        try:
            self._sender.send(self._heartbeat.make())
        except OSError:
            return  # the interface is down or its queue full: the gap will show

    def _drain(self) -> None:
        for frame in self._capture.read():
            if len(frame.data) < frame.length:
                self._meter.lost(frame.length, 1, frame.time)
            else:
                self._meter.feed(frame.data, frame.time, not frame.outgoing, tagged=frame.tagged)
        if self._passed is None or self.findings.passed is None:
            return
        for frame in self._passed.read(snap=0):
            if frame.outgoing:
                self.findings.passed.add(frame.time, frame.length)
                self.findings.passed_bytes += frame.length

    def _end(self) -> Findings:
        self._heartbeat.gap_until(time.time())
        findings = self.findings
        findings.caps = findings.caps.or_looser(read_caps(self._interface, self._behind_cap))
        try:
            delta, counted = self._quiet_difference(), self._counters_exact
        except UsageError:  # the interface is gone, with its counters; what was seen stays
            delta, counted = 0, False
        if delta:
            findings.unseen_bytes = delta
            self._meter.lost(delta, 0, time.time())
        findings.drops = self._capture.drops()
        findings.passed_drops = self._passed.drops() if self._passed else 0
        findings.counters_agree = counted and not delta
        self._sources.poll(self._meter)
        self._meter.finish()
        findings.inputs = self._sources.digests()
        return findings

    def _quiet_difference(self) -> int:
        """Bytes that the interface counted and the capture did not show, at a moment when nothing is on its
        way.
        """
        difference = 0
        for _ in range(_CALM_ROUNDS):
            before = InterfaceCounters.read(self._interface)
            time.sleep(2 * _PATIENCE)  # a block that is not full is handed over after this time
            self._drain()
            after = InterfaceCounters.read(self._interface)
            carried = after.received_bytes + after.sent_bytes
            carried -= self._base.received_bytes + self._base.sent_bytes
            seen = self._meter.to_server.bytes + self._meter.from_server.bytes
            difference = max(0, carried - seen)
            if before == after:
                break
        return difference


def _open_counted(interface: str) -> tuple[Capture, InterfaceCounters, bool]:
    """A capture and the counters at its beginning; exact if nothing passed while it was opened."""
    capture, before = Capture(interface), InterfaceCounters.read(interface)
    for _ in range(_CALM_ROUNDS):
        capture.close()
        before = InterfaceCounters.read(interface)
        capture = Capture(interface)
        after = InterfaceCounters.read(interface)
        if before == after:
            return capture, before, True
    # Busy all the time: count from before the capture, so that what it missed is unexplained.
    return capture, before, False
