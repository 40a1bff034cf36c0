"""`ullage tap`: the trusted gateway. Its flags are the fields of `ullage.tap.config.TapConfig`."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

if TYPE_CHECKING:
    from ullage.network.isolation import Isolation
    from ullage.tap.config import TapConfig


def _run(config: Path | None, check: bool, flags: dict[str, Any]) -> None:
    from ullage.log.journal.collector import calm_collector
    from ullage.log.keys import load_tap_keys
    from ullage.model import builtin
    from ullage.model.tokenizer import ModelTokenizer
    from ullage.tap.config import read_config
    from ullage.tap.explain import explain
    from ullage.tap.isolated import isolated_server
    from ullage.tap.past import read_past
    from ullage.tap.run import enforcer_digest, open_log, serve

    settings = read_config(flags, config)
    if check:
        typer.echo("\n".join(explain(settings)))
        return
    folder = settings.model or builtin.builtin_path()
    tap_keys = load_tap_keys(settings.keys)
    declaration = _declaration(settings, folder)
    tokenizer = ModelTokenizer.load(folder)
    with isolated_server(settings) as isolation:
        tap_settings = _tap_settings(settings, settings.model_name or builtin.model_name(folder), isolation)
        if tap_settings.enforce is not None:
            # Pinned from here on: an enforcer that comes back with another stack is refused.
            found = enforcer_digest(tap_settings.enforce, declaration)
            pinned = replace(tap_settings.enforce, reference_digest=found)
            tap_settings = replace(tap_settings, enforce=pinned)
            declaration = replace(declaration, reference_digest=found)
        calm_collector()
        writer = open_log(settings.log, tap_keys, declaration)
        counted = settings.day_bytes is not None or settings.covert_day_bits is not None
        past = (
            read_past(settings.log, tap_keys, time.time_ns(), settings.pace, settings.allowance)
            if counted or settings.slot
            else None
        )
        serve(tap_settings, writer, tap_keys, tokenizer, past)


def _declaration(settings: TapConfig, folder: Path) -> Any:
    from ullage.audit.selection import key_commitment, window_key, window_of_log
    from ullage.log.keys import load_verifier_keys
    from ullage.model.identity import identify
    from ullage.tap.run import Declaration

    selection = load_verifier_keys(settings.verifier_keys).selection if settings.verifier_keys else None

    def commitment(log_id: str) -> str | None:
        if selection is None:
            return settings.selection_commitment
        return key_commitment(window_key(selection, window_of_log(log_id)))

    return Declaration(identify(folder).digest, settings.profile, settings.dtype, commitment)


def _tap_settings(settings: TapConfig, model_name: str, isolation: Isolation | None) -> Any:
    from ullage.sampling.profiles import get_profile
    from ullage.tap.run import EnforceSettings, TapSettings

    chosen = get_profile(settings.profile)
    return TapSettings(
        upstream=settings.upstream if isolation is None else isolation.upstream,
        isolation=isolation,
        wire_journal=settings.wire_journal,
        meter=settings.meter,
        meter_patience=settings.meter_patience,
        listen=settings.listen,
        share_port=settings.share_port,
        model_name=model_name,
        upstream_model=settings.upstream_model,
        timeouts=settings.timeouts,
        limits=settings.limits,
        max_active=settings.max_active,
        grace=settings.grace,
        keep_alive=settings.keep_alive,
        enforce=None
        if settings.enforce is None
        else EnforceSettings(
            settings.enforce,
            chosen.position_addressed,
            settings.reference_digest,
            settings.replacements,
            settings.slot,
            settings.slot_tokens,
            settings.lateness_budget,
            settings.drafts == "text",
            settings.link_form,
        ),
        link=settings.link_form,
        # What enforcement releases in slots of its own has one length and one spelling: nothing to pad.
        pace=None if settings.enforce else settings.pace,
        allowance=settings.allowance,
        cap=settings.cap,
        cap_patience=settings.cap_patience,
        client_day_bytes=settings.client_day_bytes,
        day_bytes=settings.day_bytes,
        covert=settings.covert_terms,
        monitoring=settings.monitoring,
        api_keys=settings.api_keys,
        tls_certificate=settings.tls_certificate,
        tls_key=settings.tls_key,
        operations=settings.operations,
        telemetry=settings.telemetry,
        telemetry_out=settings.telemetry_out,
    )


def _command() -> Callable[..., None]:
    """The command, with a flag for every field of the configuration."""
    from ullage.tap.config import TapConfig

    def tap(*, config: Path | None = None, check: bool = False, **flags: Any) -> None:
        """Put the trusted gateway, with its log, in front of a server.

        The tap tokenises, issues every seed, asks the server for token ids, rebuilds the answer, and releases
        nothing that is not durably on record. It needs no weights. Settings may also stand in a TOML file
        (--config) or in the environment (ULLAGE_TAP_UPSTREAM and so on); a flag wins. Prints `listening on
        URL` when it is ready.
        """
        _run(config, check, flags)

    parameters = [
        _parameter("config", Annotated[Path | None, typer.Option(help="TOML file of the settings.")], None),
        _parameter(
            "check",
            Annotated[bool, typer.Option("--check", help="Explain the configuration, then end.")],
            False,
        ),
    ]
    for name, field in TapConfig.model_fields.items():
        shown = False if field.is_required() or field.default is None else str(field.default)
        option = typer.Option(help=field.description, show_default=shown)
        parameters.append(_parameter(name, Annotated[_flag_type(field.annotation), option], None))
    tap.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    tap.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return tap


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flag_type(annotation: Any) -> Any:
    """Paths are paths, switches switches; everything else is a text that the configuration itself reads."""
    if annotation is bool:
        return bool | None
    is_path = annotation is Path or Path in get_args(annotation)
    return (Path if is_path else str) | None


tap = _command()
