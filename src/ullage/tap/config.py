"""How a tap is configured: one list of fields for the file, the environment and the flags.

A flag wins over the environment (`ULLAGE_TAP_` and the field's name in capitals), that over the file (TOML,
`--config`), and that over the defaults. What nobody knows is refused, in the file and in the environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ullage.errors import UsageError
from ullage.tap.choices.draft import DEFAULT_REPLACEMENTS
from ullage.tap.clients.http import ClientLimits
from ullage.tap.isolated import parse_command, parse_list
from ullage.tap.operations.monitored import Monitoring
from ullage.tap.pacing.grid import Order, Pace
from ullage.tap.pacing.ledger import Allowance
from ullage.tap.residual.capacity import CovertTerms, Release
from ullage.tap.units import Duration, Rate, Share, Size
from ullage.tap.upstream.cap import DEFAULT_RATE
from ullage.tap.upstream.connections import Timeouts
from ullage.tap.upstream.link import Form, Link

PREFIX: Final = "ULLAGE_TAP_"
_Positive = Annotated[int, Field(ge=1)]
_Command = Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_command)]
_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_list)]
_Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(parse_list)]


def _help(text: str, **limits: Any) -> Any:
    return Field(description=text, **limits)


class TapConfig(BaseSettings):
    """Every setting of `ullage tap`. Durations are seconds or `250ms`, sizes bytes or `1MiB`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)
    _file: ClassVar[Path | None] = None

    log: Annotated[Path, _help("Folder of the log; continued if it declares the same.")]
    keys: Annotated[Path, _help("The tap's keys, made by `ullage keys init`.")]
    upstream: Annotated[
        str, _help("Server to put the tap in front of, http://HOST:PORT; without --isolate it is needed.")
    ] = ""
    isolate: Annotated[
        _Command | None,
        _help(
            "Command of the server: started isolated, its one cable to the tap capped. {host}, {port}: where."
        ),
    ] = None
    isolate_readable: Annotated[_Paths, _help("Files and folders that it may read, A:B; --model is.")] = ()
    isolate_devices: Annotated[
        _Names, _help("Devices that it may use, such as /dev/nvidia0:/dev/nvidiactl.")
    ] = ()
    isolate_output: Annotated[Path | None, _help("File for its output, a way out. Default: thrown away.")] = (
        None
    )
    isolate_without: Annotated[
        _Names, _help("Protections that may be missing, such as cgroup:uts; what that opens is said.")
    ] = ()
    wire_journal: Annotated[
        Path | None, _help("New file for `ullage wire meter`: what crossed the server's link, by record.")
    ] = None
    meter: Annotated[
        Path | None,
        _help("File of `ullage wire meter --alive FILE`: while the meter is silent nothing is released."),
    ] = None
    meter_patience: Annotated[Duration, _help("Its silence of so long counts.", ge=0.3)] = 0.7
    listen: Annotated[str, _help("HOST:PORT for clients; port 0 takes a free one.")] = "127.0.0.1:8100"
    share_port: Annotated[
        bool, _help("Let further taps, each with its own log, listen on the same port: one a core.")
    ] = False
    model: Annotated[
        Path | None, _help("Folder of the declared model: tokenizer, template, digest. Default: built in.")
    ] = None
    profile: Annotated[str, _help("Sampler profile that the server declares.")] = "murmur3-gumbel/f64"
    dtype: Annotated[Literal["float32", "bfloat16"], _help("Number format that the server declares.")] = (
        "float32"
    )
    model_name: Annotated[
        str | None, _help("The model's name towards clients. Default: its folder's name.")
    ] = None
    upstream_model: Annotated[str | None, _help("The model's name at the server. Default: none is sent.")] = (
        None
    )
    selection_commitment: Annotated[
        str | None, _help("The verifier's commitment to its selection key, for the log's header.")
    ] = None
    verifier_keys: Annotated[
        Path | None, _help("The verifier's keys, to make that commitment here (demo, own audits).")
    ] = None

    enforce: Annotated[
        Path | None, _help("Socket of `ullage enforcer`: release the reference's tokens alone.")
    ] = None
    reference_digest: Annotated[
        str | None, _help("The enforcer's numerical stack must be this one. Default: any.")
    ] = None
    replacements: Annotated[
        int, _help("Wrong tokens of an answer after which the reference decodes alone.", ge=0)
    ] = DEFAULT_REPLACEMENTS

    drafts: Annotated[
        Literal["ids", "text"],
        _help(
            "Under enforcement: ids, or text for servers that give no token ids (drafts at temperature 0)."
        ),
    ] = "ids"

    slot: Annotated[Duration, _help("Release at slots of this length, such as 250ms; 0: at once.")] = 0.0
    lateness_budget: Annotated[
        float | None,
        _help(
            "Under enforcement, bits that late slots of this log may carry; then the server is not asked. "
            "Default: no end.",
            ge=1,
        ),
    ] = None
    slot_tokens: Annotated[_Positive, _help("Tokens a slot.")] = 32
    lead: Annotated[int, _help("Slots between a request and its first group of tokens.", ge=1)] = 2
    order: Annotated[Order, _help("Order within a slot: fifo, or keyed (a secret order).")] = "fifo"
    pad_to: Annotated[int, _help("Pad lengths to multiples of so many tokens; 0: not.", ge=0)] = 0
    chunk_bytes: Annotated[int, _help("Pieces of a slotted stream are multiples of it.", ge=256)] = 1024
    late_share: Annotated[Share, _help("Share of releases that may be late or failed.")] = 0.02
    late_burst: Annotated[_Positive, _help("Late or failed releases allowed at once.")] = 256
    late_drip: Annotated[Duration, _help("One more is allowed every so often.")] = 1800.0

    link: Annotated[
        Form | None,
        _help("How the server's tokens come: events, chunks, whole. Default: whole with --slot or --cap."),
    ] = None
    upstream_ids: Annotated[
        Literal["token_ids", "logprobs"],
        _help("Where the server names token ids: by return_token_ids, or in logprobs (llama.cpp)."),
    ] = "token_ids"
    link_tokens: Annotated[_Positive, _help("Tokens a piece with --link chunks.")] = 32
    cap: Annotated[
        Rate | None,
        _help(f"Bytes a second on the server's link, each way, such as {DEFAULT_RATE / 1000:.0f}KB/s."),
    ] = None
    cap_patience: Annotated[
        Duration, _help("Requests wait for the link; one that would wait longer gets a 503.")
    ] = 10.0
    client_day_bytes: Annotated[Size | None, _help("Bytes a day to one client; then 429.")] = None
    day_bytes: Annotated[Size | None, _help("Bytes a day to all clients; then 429.")] = None
    covert_day_bits: Annotated[
        float | None,
        _help(
            "Bits a day that tokens and releases may carry in secret, as they are bounded; then 429.", gt=0
        ),
    ] = None
    covert_bits_per_token: Annotated[
        float | None,
        _help(
            "What a token may carry: token.covert_capacity of this server's audits. 0 with --enforce.", ge=0
        ),
    ] = None
    monitor: Annotated[
        Literal["off", "alarm", "block"],
        _help("Read answers for encoded payloads: alarm, or also refuse that client for the day (429)."),
    ] = "off"
    monitor_honest_bits: Annotated[
        float, _help("Payload bits a message, on average, that an honest client gets.", gt=0, lt=4096)
    ] = 16.0
    monitor_day_bits: Annotated[
        int | None, _help("Payload bits a day to one client that are an alarm by themselves.", ge=0)
    ] = None

    api_keys: Annotated[Path | None, _help("File of clients and hashes of their keys.")] = None
    tls_certificate: Annotated[Path | None, _help("Certificate (PEM) for clients' connections.")] = None
    tls_key: Annotated[Path | None, _help("Its private key (PEM).")] = None
    operations: Annotated[str | None, _help("HOST:PORT of /metrics, /healthz and /readyz.")] = None
    telemetry: Annotated[Path | None, _help("Declaration of the telemetry that may leave.")] = None
    telemetry_out: Annotated[Path | None, _help("Where its samples are written, a line each.")] = None

    max_active: Annotated[_Positive, _help("Answers made at once (a request has `n`); more get a 503.")] = (
        1024
    )
    connections: Annotated[_Positive, _help("Clients' connections at once.")] = 2048
    body_bytes: Annotated[Size, _help("Most bytes of a request's body.", ge=1024)] = 1 << 20
    head_bytes: Annotated[Size, _help("Most bytes of a request's head.", ge=1024)] = 32 << 10
    header_lines: Annotated[_Positive, _help("Most lines of a request's head.")] = 100
    connect_timeout: Annotated[Duration, _help("To connect to the server.", gt=0)] = 5.0
    first_byte_timeout: Annotated[Duration, _help("Until a stream begins.", gt=0)] = 120.0
    between_timeout: Annotated[Duration, _help("Silence within an answer.", gt=0)] = 60.0
    total_timeout: Annotated[Duration, _help("For a whole answer.", gt=0)] = 600.0
    grace: Annotated[Duration, _help("For requests in flight when it stops.", ge=1)] = 10.0
    keep_alive: Annotated[_Positive, _help("Seconds that an idle connection is kept.")] = 65

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, file."""
        file = TomlConfigSettingsSource(settings_cls, cls._file)
        return init_settings, env_settings, file

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.selection_commitment is not None and self.verifier_keys is not None:
            raise ValueError("give selection_commitment or verifier_keys, not both")
        if self.isolate is None and not self.upstream:
            raise ValueError(
                f"--upstream is missing; give it as a flag, as {PREFIX}UPSTREAM or in the file, or a command "
                "with isolate"
            )
        if self.isolate is not None and self.upstream:
            raise ValueError("give upstream or isolate, not both: an isolated server has one address")
        if self.isolate is not None and self.cap is None:
            raise ValueError("isolate needs cap, the kernel's limit on the cable, such as 100KB/s")
        if self.enforce is None and self.reference_digest is not None:
            raise ValueError("reference_digest goes with enforce")
        if self.enforce is None and self.drafts != "ids":
            raise ValueError("a server that gives text and no token ids can only draft: give enforce, too")
        if self.lateness_budget is not None and (self.enforce is None or not self.slot):
            raise ValueError("lateness_budget counts late slots under enforcement: give enforce and slot too")
        if self.enforce is not None and self.link == "whole" and self.slot:
            raise ValueError(
                "a whole draft comes after its slots: give link whole or slot with enforce, not both"
            )
        if 0 < self.slot < _SHORTEST_SLOT:
            raise ValueError(f"slot is at least {_SHORTEST_SLOT * 1000:.0f}ms, or 0")
        return self

    @model_validator(mode="after")
    def _what_goes_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.meter is not None and self.wire_journal is None:
            raise ValueError("meter goes with wire_journal: without one a meter can explain nothing")
        if self.monitor == "off" and self.monitor_day_bits is not None:
            raise ValueError("monitor_day_bits goes with monitor")
        tokens_count = self.covert_day_bits is not None and self.enforce is None
        if tokens_count != (self.covert_bits_per_token is not None):
            raise ValueError(
                "covert_day_bits goes with covert_bits_per_token, but with enforce, where tokens carry none, "
                "it stands alone"
            )
        if (self.telemetry is None) != (self.telemetry_out is None):
            raise ValueError("telemetry and telemetry_out go together")
        return self

    @property
    def pace(self) -> Pace | None:
        """How answers are released; None: at once."""
        if not self.slot:
            return None
        return Pace(self.slot, self.slot_tokens, self.lead, self.order, self.pad_to, self.chunk_bytes)

    @property
    def allowance(self) -> Allowance:
        """How much may be late or fail."""
        return Allowance(self.late_share, self.late_burst, self.late_drip)

    @property
    def covert_terms(self) -> CovertTerms | None:
        """What a day's answers may carry in secret; None: not declared."""
        if self.covert_day_bits is None:
            return None
        slots: Release = "slots" if self.enforce is None else "enforced-slots"
        each = self.covert_bits_per_token or 0.0
        release: Release = slots if self.slot else "at-once"
        return CovertTerms(self.covert_day_bits, each, release, self.total_timeout)

    @property
    def monitoring(self) -> Monitoring | None:
        """How answers are read for payloads; None: not."""
        if self.monitor == "off":
            return None
        return Monitoring(self.monitor == "block", self.monitor_honest_bits, self.monitor_day_bits)

    @property
    def link_form(self) -> Link:
        """How the server is asked. Drafts for slots come as they are made, since a whole one is late."""
        drafts_for_slots = self.enforce is not None and self.slot > 0
        compact = not drafts_for_slots and (self.slot > 0 or self.cap is not None)
        form = self.link or ("whole" if compact else "events")
        return Link(form, self.link_tokens, logprobs=self.upstream_ids == "logprobs")

    @property
    def timeouts(self) -> Timeouts:
        """What the server may take."""
        return Timeouts(
            self.connect_timeout, self.first_byte_timeout, self.between_timeout, self.total_timeout
        )

    @property
    def limits(self) -> ClientLimits:
        """What one client may take."""
        return ClientLimits(
            head_bytes=self.head_bytes,
            header_lines=self.header_lines,
            body_bytes=self.body_bytes,
            connections=self.connections,
        )


_SHORTEST_SLOT: Final = 0.01


def read_config(flags: dict[str, Any], file: Path | None) -> TapConfig:
    """The settings from flags (those that are None were not given), environment and file.

    Raises UsageError that names the field.
    """
    known = {name.upper() for name in TapConfig.model_fields}
    strangers = sorted(
        name for name in os.environ if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in known
    )
    if strangers:
        raise UsageError(f"{', '.join(strangers)} in the environment is no setting of the tap.")
    if file is not None and not file.is_file():
        raise UsageError(f"{file} is not a file; --config names the TOML file of the settings.")
    configured = type("TapConfig", (TapConfig,), {"_file": file, "__module__": __name__})
    try:
        config: TapConfig = configured(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise UsageError(_sentence(error)) from error
    except ValueError as error:  # a file that is no TOML
        raise UsageError(f"{file} cannot be read: {error}.") from error
    return config


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "missing":
        flag = f"--{name.replace('_', '-')}"
        return f"{flag} is missing; give it as a flag, as {PREFIX}{name.upper()} or in the file."
    if first["type"] == "extra_forbidden":
        return f"'{name}' is no setting of the tap."
    return f"{name}: {message}." if name else f"{message}."
