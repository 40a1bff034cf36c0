"""The tap's process: the log, the listening socket, the server, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvicorn
from pydantic import ValidationError

from ullage import __version__
from ullage.errors import FaultError, UsageError
from ullage.log.journal.recovery import holds_log
from ullage.log.keys import TapKeys
from ullage.log.record import HeaderPart, first_problem
from ullage.log.writer import LogWriter
from ullage.network.isolation import Isolation
from ullage.tap.beside import Beside
from ullage.tap.choices.draft import DEFAULT_REPLACEMENTS
from ullage.tap.choices.enforced import Enforcement
from ullage.tap.choices.enforcement import EnforcerClient
from ullage.tap.choices.enforcer_watch import EnforcerWatch
from ullage.tap.choices.tokens import Tokenizer
from ullage.tap.clients.http import ClientLimits, ClientProtocol
from ullage.tap.failures import Failure
from ullage.tap.operations.address import OperationsApp
from ullage.tap.operations.monitored import Monitoring
from ullage.tap.pacing.enforced import Watch
from ullage.tap.pacing.grid import Pace
from ullage.tap.pacing.ledger import Allowance
from ullage.tap.parts import Parts, build, check_certificate, no_app
from ullage.tap.past import Past
from ullage.tap.recorder import Recorder
from ullage.tap.residual.capacity import CovertTerms
from ullage.tap.tell import tell_operator
from ullage.tap.upstream.connections import Timeouts
from ullage.tap.upstream.link import DEFAULT_LINK, Link

_BACKLOG = 2048
_LAST_READING = 5.0  # seconds for the monitor to read what was released last


@dataclass(frozen=True)
class Declaration:
    """What the operator says is served; the first entry of the log.

    `commitment` gives the verifier's commitment to its selection key, `sha256:…`, for a log's id, if any.
    `reference_digest` is the enforcer's (`enforcer_digest`), None where the tap does not enforce.
    """

    model_digest: str
    profile: str
    dtype: str
    commitment: Callable[[str], str | None] = lambda log_id: None
    reference_digest: str | None = None

    def header(self, log_id: str) -> HeaderPart:
        """The header of a log of this declaration, made now. Raises UsageError."""
        try:
            return HeaderPart(
                created=time.time_ns(),
                dtype=self.dtype,
                log_id=log_id,
                model_digest=self.model_digest,
                profile=self.profile,
                reference_digest=self.reference_digest,
                selection_commitment=self.commitment(log_id),
                software=f"ullage/{__version__}",
            )
        except ValidationError as error:
            raise UsageError(f"The log's header cannot be made: {first_problem(error)}.") from error

    def matches(self, found: HeaderPart) -> bool:
        """Whether a log with this header can be continued; without a commitment of ours, any is kept."""
        ours = (self.model_digest, self.profile, self.dtype, self.reference_digest)
        commitment = self.commitment(found.log_id)
        committed = commitment in (None, found.selection_commitment)
        return committed and ours == (found.model_digest, found.profile, found.dtype, found.reference_digest)


@dataclass(frozen=True)
class EnforceSettings:
    """Where the enforcer listens and how its tokens are released; see `Enforcement`."""

    socket: Path
    continues: bool
    reference_digest: str | None = None  # None: any stack
    replacements: int = DEFAULT_REPLACEMENTS
    slot: float = 0.0
    slot_tokens: int = 32
    lateness_budget: float | None = None  # bits; None: late slots are counted and told, no more
    text_drafts: bool = False  # whether the server gives text alone
    link: Link = DEFAULT_LINK  # how drafts come


@dataclass(frozen=True)
class TapSettings:
    """How the tap listens, what it is in front of, and its limits. Times are in seconds."""

    upstream: str
    listen: str
    model_name: str
    share_port: bool = False  # other taps may listen on the same port
    upstream_model: str | None = None  # None: the field is left out
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: ClientLimits = field(default_factory=ClientLimits)
    max_active: int = 1024
    grace: float = 10.0  # for requests in flight when the tap is told to stop
    keep_alive: int = 65
    enforce: EnforceSettings | None = None
    link: Link = DEFAULT_LINK
    pace: Pace | None = None
    allowance: Allowance = field(default_factory=Allowance)
    cap: float | None = None  # HTTP bytes a second on the server's link, each way
    cap_patience: float = 10.0  # longest wait for the link before a request is refused
    client_day_bytes: int | None = None
    day_bytes: int | None = None
    covert: CovertTerms | None = None  # bits a day that tokens and releases may carry
    monitoring: Monitoring | None = None  # for encoded payloads in answers
    api_keys: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    operations: str | None = None  # HOST:PORT of metrics and health
    telemetry: Path | None = None
    telemetry_out: Path | None = None
    wire_journal: Path | None = None
    meter: Path | None = None  # the meter's sign of life
    meter_patience: float = 0.7  # seconds of its silence after which nothing is released
    isolation: Isolation | None = None  # the server's, at whose cable the tap's other end is


def enforcer_digest(settings: EnforceSettings, declaration: Declaration) -> str:
    """The digest of the reference that the enforcer runs, `sha256:…`: what a log's header has to name.

    Asked before there is a log, so that a tap without its reference begins none. Raises UsageError when
    the enforcer runs another model, profile or stack than declared, EnforcerError when there is none.
    """

    async def ask() -> str:
        client = await EnforcerClient.connect(
            settings.socket, declaration.model_digest, declaration.profile, settings.reference_digest
        )
        await client.close()
        return f"sha256:{client.welcome.reference_digest.hex()}"

    return asyncio.run(ask())


def open_log(directory: Path, keys: TapKeys, declaration: Declaration) -> LogWriter:
    """Start the log, or go on with it if it declares the same. Raises UllageError."""
    if not holds_log(directory):
        return LogWriter.create(directory, keys, declaration.header(keys.new_log_id()))
    writer = LogWriter.open(directory, keys)
    found = writer.header
    if not declaration.matches(found):
        writer.close()
        raise UsageError(
            f"The log in {directory} declares model {found.model_digest}, profile {found.profile}, "
            f"{found.dtype}, enforced reference {found.reference_digest or 'none'}, selection "
            f"{found.selection_commitment or 'none'}; this tap would declare something else. "
            "Choose another folder for its log."
        )
    if writer.recovery.aborted:
        count = len(writer.recovery.aborted)
        tell_operator(f"{count} records were in flight when the log was left; closed as aborted")
    return writer


def serve(
    settings: TapSettings,
    writer: LogWriter,
    keys: TapKeys,
    tokenizer: Tokenizer,
    past: Past | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then close the log. Raises UsageError, FaultError.

    `past` is that of the log's earlier records (`read_past`). Prints `listening on http://HOST:PORT`
    on standard output when requests are taken.
    """
    recorder = Recorder(writer, keys.seed)
    past = past or Past()
    try:
        listener = _listen(settings.listen, share_port=settings.share_port)
        operations = None if settings.operations is None else _listen(settings.operations)
        config = _http_config(settings)
        if settings.isolation is not None:
            settings.isolation.enter()  # the sockets for clients stay outside
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            parts = build(settings, recorder, keys, tokenizer, past)
            config.app = parts.app
            if settings.enforce is not None:
                watch = Watch(tell_operator, settings.enforce.lateness_budget, replace(past.lateness))
                connecting = _connect(settings.enforce, writer.header, tokenizer, watch)
                parts.gateway.enforcement = runner.run(connecting)
            runner.run(_serve(config, listener, operations, parts))
    finally:
        recorder.close()
    if parts.gateway.gate.holds(Failure.LOG_UNAVAILABLE):
        raise FaultError("The log could not be written any more; look at its disk before the next start.")
    if parts.gateway.gate.holds(Failure.INTERNAL_ERROR):
        raise FaultError("A part of the tap failed while it ran, as said above; nothing was released since.")


def _http_config(settings: TapSettings) -> uvicorn.Config:
    """uvicorn for the clients' address. Raises UsageError for a certificate that cannot be used."""
    protocol = type("Protocol", (ClientProtocol,), {"limits": settings.limits})
    config = uvicorn.Config(
        no_app,
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # what goes wrong is said by the tap, in its own words
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    if settings.tls_certificate is not None:
        check_certificate(settings.tls_certificate, settings.tls_key)
    return config


async def _serve(
    config: uvicorn.Config, listener: socket.socket, operations: socket.socket | None, parts: Parts
) -> None:
    parts.supervisor.look_at_meter()  # closed from the first request on, until it is heard
    beside = Beside(parts.gateway.gate)
    beside.start("the watch of clock, log and meter", parts.supervisor.run())
    if parts.gateway.enforcement is not None:
        watch = EnforcerWatch(parts.gateway.enforcement.client, parts.gateway.gate)
        beside.start("the watch of the enforcer", watch.run())
    if parts.telemetry is not None:
        beside.start("telemetry", parts.telemetry.run())
    if operations is not None:
        beside.start("the operator's address", _serve_operations(parts.operations, operations))
    # All of it, whichever fails; the last entered comes first.
    async with contextlib.AsyncExitStack() as last:
        if parts.gateway.enforcement is not None:
            last.push_async_callback(parts.gateway.enforcement.client.close)
        if parts.watch is not None:
            last.push_async_callback(asyncio.to_thread, parts.watch.close, _LAST_READING)
        last.callback(parts.upstream.close)
        try:
            await _Server(config).serve([listener])
        finally:
            await beside.stop()
        await parts.gateway.drain()


async def _serve_operations(app: OperationsApp, listener: socket.socket) -> None:
    """The operator's address, with the same limits as the clients'."""
    protocol = type("Protocol", (ClientProtocol,), {"limits": ClientLimits(connections=64)})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )
    await _QuietServer(config).serve([listener])


async def _connect(
    settings: EnforceSettings, header: HeaderPart, tokenizer: Tokenizer, watch: Watch
) -> Enforcement:
    """Find the enforcer and see that it runs what the log declares. Raises UsageError, EnforcerError."""
    client = await EnforcerClient.connect(
        settings.socket, header.model_digest, header.profile, settings.reference_digest
    )
    found = client.welcome
    if (found.vocabulary_size, found.context_length) != (tokenizer.vocabulary_size, tokenizer.context_length):
        await client.close()
        raise UsageError(
            f"The enforcer has {found.vocabulary_size} tokens and a context of {found.context_length}, the "
            f"declared model {tokenizer.vocabulary_size} and {tokenizer.context_length}; give both one model."
        )
    return Enforcement(
        client, settings.replacements, settings.continues, settings.slot, settings.slot_tokens, watch,
        tokenizer if settings.text_drafts else None, settings.link,
    )  # fmt: skip


class _QuietServer(uvicorn.Server):
    """A second server in the process: signals are the first one's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Server(uvicorn.Server):
    """Says when it listens, and takes a signal as a wish to end, not as a death."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        stops = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in stops}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            scheme = "https" if self.config.is_ssl else "http"
            sys.stdout.write(f"listening on {scheme}://{shown}:{port}\n")
            sys.stdout.flush()


def _listen(where: str, *, share_port: bool = False) -> socket.socket:
    """A listening socket for `HOST:PORT`; port 0 takes a free one. Raises UsageError.

    `share_port`: the kernel spreads connections over all processes of this user that listen so.
    """
    host, separator, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    is_number = port.isascii() and port.isdigit() and len(port) <= 5
    if not separator or not host or not is_number or int(port) > 65535:
        raise UsageError(f"'{where}' is not HOST:PORT, such as 127.0.0.1:8100.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=_BACKLOG, reuse_port=share_port)
    except OSError as error:
        said = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UsageError(f"The tap cannot listen on {where}: {said}; choose another address.") from error
