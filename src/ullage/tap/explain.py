"""`ullage tap --check`: what a configuration means, what it costs, and what it leaves open."""

from __future__ import annotations

import shlex

from ullage.errors import UsageError
from ullage.monitor.budget import Allowance
from ullage.tap.clients.api_keys import ApiKeys
from ullage.tap.config import TapConfig
from ullage.tap.isolated import why_not_permitted
from ullage.tap.operations.telemetry import read_declaration
from ullage.tap.pacing.grid import LATE_STEPS, slots_of_step
from ullage.tap.pacing.ledger import bits_per_opportunity, pattern_bits
from ullage.tap.parts import check_certificate
from ullage.tap.upstream.connections import Address

_LOCAL = ("127.", "localhost", "[::1]", "::1")
_MESSAGES_A_DAY = 10_000
_DECIMAL_DIGITS = 6  # of a token id in JSON, with its comma: a vocabulary of 100,000


def explain(config: TapConfig) -> list[str]:
    """Sentences, one a line. Raises UsageError for what would not run."""
    lines = [f"Clients reach the tap at {config.listen}.", *_shared(config), *_server(config)]
    lines += _clients(config)
    lines += _release(config)
    lines += _link(config)
    lines += _doors(config)
    lines.append("The configuration can run.")
    return lines


def _shared(config: TapConfig) -> list[str]:
    if not config.share_port:
        return []
    return [
        "Other taps may listen there, too, each with a log of its own: every log is audited by itself, and "
        "caps, budgets and allowances are each tap's own, so what several let out adds up."
    ]


def _server(config: TapConfig) -> list[str]:
    """Where the server is and what is known of its wire. Raises NotPermittedError."""
    if config.isolate is None:
        Address.parse(config.upstream)
        lines = [
            f"The server behind it is {config.upstream}.",
            "WARNING: the tap does not isolate this server: that nothing else leaves it is for its cable.",
        ]
    else:
        if reason := why_not_permitted():
            raise UsageError(reason)
        lines = [
            f"The server behind it is started isolated: {shlex.join(config.isolate)}.",
            "Its one cable ends at the tap; the kernel holds it to the cap, Ethernet headers included.",
        ]
        lines += [f"WARNING: {name} may be missing from its isolation." for name in config.isolate_without]
        if config.isolate_output is not None:
            lines.append(
                f"WARNING: its output goes to {config.isolate_output}, a way out that is not metered."
            )
    if config.wire_journal is None:
        lines.append("WARNING: no --wire-journal: a meter cannot tell what crosses the server's link.")
    else:
        lines.append(
            f"What crosses its link is accounted for in {config.wire_journal}, for `ullage wire meter`."
        )
        if config.meter is None:
            lines.append("WARNING: no --meter: answers leave whether a meter is awake or not.")
        else:
            lines.append(
                f"While the meter that counts in {config.meter} is silent for {config.meter_patience:g} s, "
                "nothing is released."
            )
        unaccounted = []
        if config.link_form.form != "whole":
            unaccounted.append("the framing of streamed answers (--link whole has none)")
        if config.telemetry is not None:
            unaccounted.append("answers to --telemetry")
        lines += [f"WARNING: on that link a meter cannot explain {what}." for what in unaccounted]
    return lines


def _clients(config: TapConfig) -> list[str]:
    local = config.listen.startswith(_LOCAL)
    lines = []
    if config.tls_certificate is not None:
        check_certificate(config.tls_certificate, config.tls_key)
        lines.append(f"Connections of clients are TLS under {config.tls_certificate}.")
    elif not local:
        lines.append(
            "WARNING: no TLS, and the tap is not local: prompts and keys cross the network in clear."
        )
    if config.api_keys is not None:
        ApiKeys(config.api_keys)
        lines.append(f"Clients need a key that {config.api_keys} knows.")
    elif not local:
        lines.append("WARNING: no API keys: whoever reaches the address may ask.")
    for what, limit in (("a client", config.client_day_bytes), ("all clients", config.day_bytes)):
        if limit is not None:
            lines.append(f"At most {limit:,} bytes a day go to {what}; then requests get 429.")
    if (terms := config.covert_terms) is not None:
        lines.append(
            f"Answers may carry at most {terms.budget:,.0f} covert bits a day, {terms.bits_per_token:g} a "
            "token and those of when they leave; then requests get 429. That a token carries no more is for "
            "audits to show."
        )
    return [*lines, *_monitor(config)]


def _monitor(config: TapConfig) -> list[str]:
    if config.monitoring is None:
        return []
    then = "is refused for the rest of the day (429)" if config.monitoring.blocks else "is not refused"
    at_once = (
        "" if config.monitor_day_bits is None else f", or with {config.monitor_day_bits:,} bits in a day"
    )
    return [
        f"Answers are read for encoded payloads after they have left. A client that gets more than "
        f"{config.monitor_honest_bits:g} payload bits a message on average{at_once} raises an alarm, and "
        f"{then}; an honest one does so in less than one day of {1 / Allowance.alpha:,.0f}.",
        "WARNING: that sees what is written plainly encoded; what it cannot see is in docs/monitor.md.",
    ]


def _release(config: TapConfig) -> list[str]:
    pace = config.pace
    if pace is None:
        return [
            "WARNING: answers leave when they are ready: their time says whatever the server likes. "
            "--slot 250ms closes that."
        ]
    rate = pace.tokens / pace.slot
    patience = slots_of_step(LATE_STEPS) * pace.slot
    most = config.allowance.most(_MESSAGES_A_DAY, 86_400)
    a_message = pattern_bits(_MESSAGES_A_DAY, most) / _MESSAGES_A_DAY
    limit = bits_per_opportunity(config.late_share)
    return [
        f"Answers leave at slots of {pace.slot * 1000:g} ms, {pace.tokens} tokens a slot, {pace.lead} slots "
        f"after the request at the earliest: the server must bring {rate:g} tokens/s to every request.",
        f"That adds {(pace.lead + 0.5) * pace.slot * 1000:.0f} ms to an immediate answer on average; "
        f"a failure is told {patience:g} s after the answer was due.",
        f"At most {config.late_share:.2%} of releases (and {config.late_burst} at once) may be late or fail, "
        f"then nothing is released.",
        f"So time and failures carry at most {a_message:.3f} bits a release at {_MESSAGES_A_DAY:,} releases "
        f"a day, {limit:.3f} in the limit.",
        f"Lengths are padded to multiples of {pace.pad_to} tokens."
        if pace.pad_to
        else "Lengths show as they are on the wire; --pad-to 64 pads them.",
    ]


def _link(config: TapConfig) -> list[str]:
    form = config.link_form
    a_token = {"events": 250.0, "chunks": _DECIMAL_DIGITS + 60 / form.tokens, "whole": _DECIMAL_DIGITS}[
        form.form
    ]
    lines = [f"The server is asked for {form.form}: about {a_token:.0f} bytes a token on its link."]
    if config.cap is not None:
        output = config.cap / a_token
        lines.append(
            f"The link carries at most {config.cap:,.0f} bytes/s each way, so about {output:,.0f} output "
            f"tokens/s and {config.cap / _DECIMAL_DIGITS:,.0f} prompt tokens/s; requests wait up to "
            f"{config.cap_patience:g} s for it, then get 503."
        )
        if config.isolate is None:
            lines.append(
                "This cap is the tap's own; that nothing else leaves is for the kernel's limit on the link."
            )
    else:
        lines.append("WARNING: no --cap: the tap does not limit the rate on the server's link.")
    return lines


def _doors(config: TapConfig) -> list[str]:
    lines = []
    if config.enforce is not None:
        lines.append(f"Released tokens are those of the reference at {config.enforce}.")
    else:
        lines.append("Released tokens are the server's; an audit of the log tells whether they are right.")
    if config.telemetry is not None:
        declared = read_declaration(config.telemetry)
        lines.append(
            f"Telemetry leaves every {declared.interval_seconds} s: {declared.bits_per_sample:.4g} bits a "
            f"sample, {declared.bits_per_day:,.0f} of {declared.bits_per_day_budget:,.0f} bits a day."
        )
    if config.operations is not None:
        lines.append(f"Metrics and health are at {config.operations}, quantised once a minute.")
    return lines
