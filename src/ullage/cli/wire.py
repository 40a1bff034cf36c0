"""`ullage wire`: meter a link, and try what else answers from inside."""

from __future__ import annotations

import json
import re
import signal
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.claims import to_json, write_claims
from ullage.errors import ExitCode, UsageError
from ullage.terminal import plain_line

if TYPE_CHECKING:
    from ullage.network.link import Endpoint, Link
    from ullage.network.monitor import Findings, Sources

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_CAP_TOLERANCE = 1.02


def meter(
    *,
    interface: Annotated[str, typer.Option(help="The tap's end of the cable.")] = "link0",
    passed: Annotated[
        str | None, typer.Option(help="Interface behind the cap. Default: `ullage`'s own, if it is there.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Network namespace to meter in, as `ip netns` lists it.")
    ] = None,
    pcap: Annotated[
        Path | None, typer.Option(help="Meter this capture file, pcap or pcapng, instead.")
    ] = None,
    journal: Annotated[Path | None, typer.Option(help="The tap's wire journal.")] = None,
    log: Annotated[Path | None, typer.Option(help="Folder of the tap's log.")] = None,
    keys: Annotated[Path | None, typer.Option(help="The tap's keys, to open the sealed records.")] = None,
    record_keys: Annotated[
        Path | None, typer.Option(help="Instead of --keys: keys of records, of `ullage log open`.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="The tap's public key (log.pub): check at the end that the log is signed."),
    ] = None,
    tap: Annotated[str, typer.Option(help="Tap's end: ADDRESS,MAC.")] = "192.0.2.1,02:75:6c:00:00:01",
    server: Annotated[str, typer.Option(help="Server's end: ADDRESS,MAC.")] = "192.0.2.2,02:75:6c:00:00:02",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The server's TCP port.")] = 8000,
    mtu: Annotated[int, typer.Option(min=576, max=65535, help="Largest datagram, bytes.")] = 1500,
    limit: Annotated[
        int | None, typer.Option(help="Bytes a second that may pass from the server; more is a fail.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="How long; default: until interrupted.")
    ] = None,
    alive: Annotated[
        Path | None, typer.Option(help="File to count up in while awake, for `ullage tap --meter FILE`.")
    ] = None,
    rate_only: Annotated[
        bool, typer.Option("--rate-only", help="Count and explain nothing: for rack-to-rack links.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the claims to this file too.")] = None,
    as_json: Json = False,
) -> None:
    """Count every byte of a link and attribute it: to a record, to the protocol, or to nothing.

    Says `metering INTERFACE` on standard error once it sees frames. Ends with 0 if every byte is explained
    and the limit holds, 1 if not, 3 if the meter cannot show that it was awake.
    """
    from ullage.network import monitor, namespaces
    from ullage.network.link import Link
    from ullage.network.shaping import PASSED_INTERFACE
    from ullage.network.sign_of_life import SignOfLife

    link = Link(_endpoint(tap), _endpoint(server), port, mtu)
    if pcap is not None:
        if rate_only or namespace or alive:
            raise UsageError("--pcap goes without --rate-only, --namespace and --alive.")
        findings = monitor.meter_file(pcap, link, _sources(journal, log, keys, record_keys, key, whole=True))
        _finish(findings, limit, out, as_json)
        return
    sources = _sources(journal, log, keys, record_keys, key)
    if namespace is not None:
        namespaces.find(namespace).enter()
    if passed is None and _exists(PASSED_INTERFACE):
        passed = PASSED_INTERFACE
    if rate_only:
        if alive is not None:
            raise UsageError(
                "--rate-only explains nothing, so that no tap can rest on it: leave out --alive."
            )
        _meter_rate(link, interface, passed, limit=limit, seconds=seconds, out=out, as_json=as_json)
        return
    sign = None if alive is None else SignOfLife(alive)
    live = monitor.LiveMeter(link, interface, passed, sources, sign)
    typer.echo(f"metering {interface}", err=True)
    tell = (lambda findings: None) if as_json else _tell
    findings = live.run(_until(seconds), tell)
    live.close()
    _finish(findings, limit, out, as_json)


def check(
    *,
    tap: Annotated[str, typer.Option(help="The address that may answer.")] = "192.0.2.1",
    tap_port: Annotated[int | None, typer.Option(help="The port at which it may accept.")] = None,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Try from a fresh isolation, as a server there would.")
    ] = False,
    subject: Annotated[str, typer.Option(help="What the claim calls this machine.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write the claims to this file too.")] = None,
    as_json: Json = False,
) -> None:
    """Try every way out that we know from where this command runs: run it where the server stands.

    It sends packets to a few well-known addresses. Ends with 0 if nothing but the tap answers, 1 if something
    else does, 3 if part could not be tried.
    """
    from ullage.network import reach, reach_local, reach_network

    if isolated:
        raise typer.Exit(_check_isolated(tap, as_json, out))
    found = reach.run([*reach_network.attempts(tap, tap_port), *reach_local.attempts()])
    claims = found.claims(subject)
    if out is not None:
        write_claims(out, claims)
    if as_json:
        probes = [
            {"name": one.name, "outcome": one.outcome.value, "detail": one.detail} for one in found.probes
        ]
        document = {"claims": to_json(claims), "probes": probes, "not_checked": found.not_checked}
        typer.echo(json.dumps(document, indent=1))
    else:
        for probe in found.probes:
            typer.echo(plain_line(f"{probe.outcome.value:<12} {probe.name}: {probe.detail}"))
        for text in found.not_checked:
            typer.echo(f"{'not checked':<12} {text}")
        for claim in claims:
            typer.echo(claim.render())
    raise typer.Exit(int(found.exit_code))


def _check_isolated(tap: str, as_json: bool, out: Path | None) -> int:
    """Run this command inside an isolation of its own."""
    import sys

    from ullage.network.isolation import Confinement, isolate
    from ullage.network.rootfs import python_environment
    from ullage.network.shaping import Cap

    if out is not None:
        raise UsageError("--out goes without --isolated: nothing written inside remains; use --json.")
    command = [
        sys.executable,
        "-P",
        "-m",
        "ullage",
        "wire",
        "check",
        "--tap",
        tap,
        *(["--json"] if as_json else []),
    ]
    confinement = Confinement(output=sys.stdout.fileno(), environment=python_environment())
    sys.stdout.flush()
    with isolate(command, Cap.both(100_000), confinement=confinement) as isolation:
        return isolation.process.wait()


def _meter_rate(
    link: Link,
    interface: str,
    passed: str | None,
    *,
    limit: int | None,
    seconds: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from ullage.network.rate import RateMeter

    live = RateMeter(link, interface, passed)
    typer.echo(f"metering {interface}", err=True)
    findings = live.run(_until(seconds))
    live.close()
    claims = findings.claims()
    if out is not None:
        write_claims(out, claims)
    if as_json:
        typer.echo(json.dumps({"claims": to_json(claims), **findings.summary()}, indent=1))
    else:
        for name, value in findings.summary().items():
            typer.echo(f"{name.replace('_', ' ')}: {value}")
        for claim in claims:
            typer.echo(claim.render())
    over = limit is not None and findings.worst_rate > limit * _CAP_TOLERANCE
    raise typer.Exit(
        int(ExitCode.CANNOT_TELL if findings.blind else ExitCode.FAIL if over else ExitCode.PASS)
    )


def _finish(findings: Findings, limit: int | None, out: Path | None, as_json: bool) -> None:
    from ullage.network.report import summary, verdict, wire_claims

    claims = wire_claims(findings)
    if out is not None:
        write_claims(out, claims)
    code = verdict(findings, claims, limit, _CAP_TOLERANCE)
    if as_json:
        document = {"claims": to_json(claims), "verdict": code.name.lower(), **summary(findings)}
        typer.echo(json.dumps(document, indent=1))
    else:
        _tell(findings)
        for reason, size in findings.meter.reasons.most_common():
            typer.echo(plain_line(f"unexplained: {size} bytes: {reason}"))
        for claim in claims:
            typer.echo(claim.render())
    raise typer.Exit(int(code))


def _tell(findings: Findings) -> None:
    tally = findings.meter.tallies.sum
    typer.echo(
        f"{tally.total} bytes: {tally.record} of records, {tally.overhead} overhead, "
        f"{tally.heartbeat} heartbeats, {tally.unexplained} unexplained, {tally.pending} pending"
    )


def _sources(
    journal: Path | None,
    log: Path | None,
    keys: Path | None,
    record_keys: Path | None,
    key: Path | None,
    *,
    whole: bool = False,
) -> Sources:
    from ullage.log.keys import load_verifier
    from ullage.log.sealed.openers import load_opener
    from ullage.network.journal import JournalReader
    from ullage.network.monitor import Sources
    from ullage.network.records import RecordBook

    opener = load_opener(keys, record_keys)
    if log is not None and opener is None:
        raise UsageError(
            f"The records in {log} are sealed: give the tap's keys (--keys DIR with seal.key) or keys of "
            "records that `ullage log open` has written (--record-keys FILE)."
        )
    return Sources(
        None if journal is None else JournalReader(journal),
        None if log is None or opener is None else RecordBook(log, opener, whole=whole),
        None if key is None else load_verifier(key),
    )


def _endpoint(text: str) -> Endpoint:
    from ullage.network.link import Endpoint

    address, _, mac = text.partition(",")
    try:
        IPv4Address(address)
    except ValueError as error:
        raise UsageError(f"'{text}' is not ADDRESS,MAC, such as 192.0.2.1,02:75:6c:00:00:01.") from error
    if not _MAC.fullmatch(mac.lower()):
        raise UsageError(f"'{text}' is not ADDRESS,MAC, such as 192.0.2.1,02:75:6c:00:00:01.")
    return Endpoint(mac.lower(), address)


def _exists(interface: str) -> bool:
    import socket

    return any(name == interface for _, name in socket.if_nameindex())


class _until:  # noqa: N801 - reads as a word where it is used
    """Whether to stop: after so many seconds, or when SIGINT or SIGTERM has come."""

    def __init__(self, seconds: float | None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._told = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: object) -> None:
        self._told = True

    def __call__(self) -> bool:
        return self._told or (self._deadline is not None and time.monotonic() >= self._deadline)
