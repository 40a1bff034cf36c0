"""Puts a tap together from its settings: what there is, and what each part is handed."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from ullage.errors import UsageError
from ullage.log.journal.segments import CLIENT_BYTES, SEALED_FOLDER
from ullage.log.keys import TapKeys
from ullage.log.writer import LogWriter
from ullage.monitor.watch import Watch
from ullage.network.journal import WireJournal
from ullage.network.sign_of_life import LifeWatch
from ullage.tap.choices.tokens import Tokenizer
from ullage.tap.clients.api_keys import ApiKeys
from ullage.tap.clients.app import TapApp
from ullage.tap.clients.book import ClientBook
from ullage.tap.clients.budgets import Budgets
from ullage.tap.clients.call import Call
from ullage.tap.failures import Failure
from ullage.tap.gate import Gate
from ullage.tap.gateway import Gateway, Names
from ullage.tap.meters import Meters
from ullage.tap.operations.address import OperationsApp
from ullage.tap.operations.metrics import Left, MetricsPage, alarm_counts, late_counts
from ullage.tap.operations.monitored import watch_counts
from ullage.tap.operations.telemetry import Sampler, read_declaration
from ullage.tap.operations.telemetry_door import TelemetryDoor
from ullage.tap.pacing.grid import ReleaseClock
from ullage.tap.pacing.ledger import Ledger
from ullage.tap.pacing.schedule import Pacer
from ullage.tap.past import Past
from ullage.tap.recorder import Recorder
from ullage.tap.residual.capacity import Counts, CovertBudget
from ullage.tap.supervisor import Supervisor
from ullage.tap.upstream.cap import LinkCap
from ullage.tap.upstream.connections import Address, Upstream

if TYPE_CHECKING:
    from ullage.tap.run import TapSettings


@dataclass(frozen=True)
class Parts:
    """Everything that a running tap consists of, beside its sockets."""

    app: TapApp
    gateway: Gateway
    upstream: Upstream
    supervisor: Supervisor
    operations: OperationsApp
    telemetry: TelemetryDoor | None
    watch: Watch | None


async def no_app(call: Call) -> None:
    """Stands where the application will be: nothing is served before it is there."""
    raise RuntimeError("the tap's application was not set")


def build(
    settings: TapSettings,
    recorder: Recorder,
    keys: TapKeys,
    tokenizer: Tokenizer,
    past: Past,
) -> Parts:
    """Raises UsageError for settings that cannot be."""
    budgets = Budgets(
        settings.client_day_bytes, settings.day_bytes, book=_client_book(settings, recorder, keys)
    )
    budgets.restore(past.released, past.time_ns or time.time_ns())
    gate, meters = Gate(), Meters()
    cap = None if settings.cap is None else LinkCap.make(settings.cap, settings.cap_patience, time.monotonic)
    journal = _wire_journal(settings, recorder.log.header.log_id)
    upstream = Upstream(Address.parse(settings.upstream), settings.timeouts, cap, journal)
    pacer = _pacer(settings, keys, gate, past)
    gateway = Gateway(
        recorder,
        upstream,
        tokenizer,
        Names(settings.model_name, settings.upstream_model),
        gate=gate,
        meters=meters,
        link=settings.link,
        pacer=pacer,
    )
    if settings.covert is not None:
        covert = CovertBudget(
            settings.covert, lambda: counts_since_start(gateway, pacer, past), past.counts, past.time_ns
        )
        budgets.further = covert
    else:
        covert = None
    watch = None if settings.monitoring is None else settings.monitoring.start()
    app = TapApp(
        gateway=gateway,
        tokenizer=tokenizer,
        header=recorder.log.header,
        model_name=settings.model_name,
        limits=settings.limits,
        max_active=settings.max_active,
        keys=None if settings.api_keys is None else ApiKeys(settings.api_keys),
        budgets=budgets,
        cap=cap,
        watch=watch,
    )
    telemetry = _telemetry(settings.telemetry, settings.telemetry_out, upstream, gate)
    left = None if covert is None else Left(covert.terms.budget, lambda: covert.step(time.time_ns()))
    page = MetricsPage(lambda: _figures(meters, gate, pacer, telemetry, watch), time.time, left)
    meter = None if settings.meter is None else LifeWatch(settings.meter, settings.meter_patience)
    supervisor = Supervisor(gate, recorder, pacer, meter=meter)
    return Parts(app, gateway, upstream, supervisor, OperationsApp(gate, page), telemetry, watch)


def check_certificate(certificate: Path, key: Path | None) -> None:
    """Raises UsageError unless the two files are a certificate and its key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "they do not fit"
        raise UsageError(f"TLS cannot be used with {certificate} and {key}: {reason}.") from error


def _client_book(settings: TapSettings, recorder: Recorder, keys: TapKeys) -> ClientBook | None:
    """What each client had today, where clients have a budget and the log is a folder of ours."""
    if settings.client_day_bytes is None or not isinstance(recorder.log, LogWriter):
        return None
    return ClientBook(recorder.log.directory / SEALED_FOLDER / CLIENT_BYTES, keys.seed)


def _wire_journal(settings: TapSettings, log_id: str) -> WireJournal | None:
    """Raises UsageError where a meter could not read the link."""
    if settings.wire_journal is None:
        return None
    address = Address.parse(settings.upstream)
    if address.tls or not _is_ipv4(address.host):
        raise UsageError(
            f"A wire journal is of plain HTTP to an IPv4 address; {settings.upstream} is something else."
        )
    return WireJournal(settings.wire_journal, log_id)


def _is_ipv4(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


def _pacer(settings: TapSettings, keys: TapKeys, gate: Gate, past: Past) -> Pacer | None:
    pace = settings.pace
    if pace is None:
        return None

    def exhausted() -> None:
        gate.trip(
            Failure.CHANNEL_EXHAUSTED,
            "the server was late or failed more often than is allowed; nothing is released for now",
        )

    ledger = Ledger(settings.allowance, time.monotonic, exhausted, past.allowance_left)
    return Pacer(pace, ReleaseClock(pace.slot, pace.order, keys.seed), ledger)


def counts_since_start(gateway: Gateway, pacer: Pacer | None, past: Past) -> Counts:
    """What was answered since the tap began; enforcement counts on from what it was told of the past."""
    meters, enforcement = gateway.meters, gateway.enforcement
    kept = None if enforcement is None else enforcement.watch.ledger
    return Counts(
        messages=meters.requests,
        tokens=meters.output_tokens,
        releases=meters.releases if pacer is None else pacer.ledger.opportunities,
        exceptions=meters.failed if pacer is None else pacer.ledger.exceptions.total() + pacer.ledger.own,
        slots=0 if kept is None else kept.slots - past.lateness.slots,
        late=0 if kept is None else kept.late - past.lateness.late,
    )


def _telemetry(path: Path | None, out: Path | None, upstream: Upstream, gate: Gate) -> TelemetryDoor | None:
    if path is None:
        return None
    if out is None:
        raise UsageError("--telemetry needs --telemetry-out FILE, to which the samples are written.")
    return TelemetryDoor(Sampler(read_declaration(path)), upstream, gate, out)


def _figures(
    meters: Meters,
    gate: Gate,
    pacer: Pacer | None,
    telemetry: TelemetryDoor | None,
    watch: Watch | None,
) -> dict[str, float]:
    """The true figures under the names of `ullage.tap.operations.metrics`."""
    return {
        "requests_total": meters.requests,
        "failed_total": meters.failed,
        "prompt_tokens_total": meters.prompt_tokens,
        "output_tokens_total": meters.output_tokens,
        "noncanonical_outputs_total": meters.noncanonical,
        "link_sent_bytes_total": meters.bytes_to_upstream,
        "link_received_bytes_total": meters.bytes_from_upstream,
        "client_sent_bytes_total": meters.bytes_to_client,
        "tap_delays_total": pacer.ledger.own if pacer else 0,
        "telemetry_samples_total": telemetry.samples if telemetry else 0,
        **watch_counts(watch),
        **late_counts(pacer.ledger.exceptions if pacer else {}),
        **alarm_counts(gate.alarms),
    }
