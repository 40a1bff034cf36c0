"""Writes examples/grafana/ullage.json: a dashboard over a tap's figures and the claims about it.

python tools/grafana_dashboard.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[1] / "examples" / "grafana" / "ullage.json"
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_LATE = (1, 3, 7, 15, 31, 63)
_RED_BELOW_ONE = [{"color": "red", "value": None}, {"color": "green", "value": 1}]


def main() -> int:
    """Write or check the file."""
    made = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        return int(not PATH.exists() or PATH.read_text("utf-8") != made)
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(made, "utf-8")
    return 0


def dashboard() -> dict[str, Any]:
    """Grafana's JSON model, schema version 39."""
    alarms = (
        "log_unavailable", "enforcer_unavailable", "meter_unavailable", "clock_unsure", "channel_exhausted"
    )  # fmt: skip
    late = [(f"increase(ullage_tap_late_{slots}_total[1h])", f"by {slots} slots") for slots in _LATE]
    panels = [
        _stat("Tap", "ullage_tap_ready", 0, 0, steps=_RED_BELOW_ONE, mappings=("closed", "open")),
        _stat("Log", 'min(ullage_claim{name="log.integrity"})', 4, 0, steps=_RED_BELOW_ONE,
              mappings=("broken", "whole")),
        _stat("Mismatches", 'max(ullage_claim{name="token.mismatch_rate"})', 8, 0, unit="percentunit"),
        _stat("Hidden bits a day, at most", 'max(ullage_claim{name="total.covert_bits_per_day"})', 12, 0),
        _stat("Leaving, at most", 'max(ullage_claim{name="wire.egress_rate"})', 16, 0, unit="Bps"),
        _stat("A wipe takes", 'max(ullage_claim{name="memory.wipe_cycle"})', 20, 0, unit="s"),
        _lines("Unaccounted for, at most ($reading)", 0, 5, 16, unit="percentunit", logarithmic=True,
               queries=(('ullage_unaccounted_fraction{reading="$reading"}', "{{fraction}}"),
                        ("ullage_unaccounted_bar > 0", "bar: {{fraction}}"))),
        _table("Claims", 'ullage_claim', 16, 5),
        _lines("Requests and failures", 0, 14, 8, unit="reqps",
               queries=(("rate(ullage_tap_requests_total[15m])", "requests"),
                        ("rate(ullage_tap_failed_total[15m])", "failures of the server"))),
        _lines("Tokens", 8, 14, 8, unit="short",
               queries=(("rate(ullage_tap_prompt_tokens_total[15m])", "prompts"),
                        ("rate(ullage_tap_output_tokens_total[15m])", "outputs"))),
        _lines("Bytes", 16, 14, 8, unit="Bps",
               queries=(("rate(ullage_tap_client_sent_bytes_total[15m])", "to clients"),
                        ("rate(ullage_tap_link_sent_bytes_total[15m])", "to the server"),
                        ("rate(ullage_tap_link_received_bytes_total[15m])", "from the server"))),
        _lines("Alarms since the start", 0, 22, 8, unit="short",
               queries=tuple((f"ullage_tap_alarm_{one}_total", one.replace("_", " ")) for one in alarms)),
        _lines("Late answers an hour", 8, 22, 8, unit="short",
               queries=(*late, ("increase(ullage_tap_late_failed_total[1h])", "failed"),
                        ("increase(ullage_tap_tap_delays_total[1h])", "by the tap itself"))),
        _lines("Odd outputs and telemetry an hour", 16, 22, 8, unit="short",
               queries=(("increase(ullage_tap_noncanonical_outputs_total[1h])", "not canonical"),
                        ("increase(ullage_tap_telemetry_samples_total[1h])", "samples of telemetry"))),
        _lines("Encoded payloads an hour", 0, 30, 8, unit="short",
               queries=(("increase(ullage_tap_monitor_payload_bits_total[1h])", "bits in answers"),
                        ("increase(ullage_tap_monitor_skipped_total[1h])", "answers not read"))),
        _lines("Covert capacity left today, bits", 8, 30, 8, unit="short",
               queries=(("ullage_tap_covert_left_bits", "left, at least"),
                        ("ullage_tap_covert_budget_bits", "budget of a day"))),
        _lines("Clients with an alarm", 16, 30, 8, unit="short",
               queries=(("increase(ullage_tap_monitor_alarms_total[1d])", "a day"),)),
    ]  # fmt: skip
    return {
        "title": "Ullage",
        "uid": "ullage",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [_variable("source", "datasource", "prometheus"), _reading()]},
        "panels": [panel | {"id": number} for number, panel in enumerate(panels, 1)],
    }


def _variable(name: str, kind: str, query: str) -> dict[str, Any]:
    return {"name": name, "label": name.capitalize(), "type": kind, "query": query}


def _reading() -> dict[str, Any]:
    return _variable("reading", "custom", "inspector,operator") | {
        "current": {"text": "inspector", "value": "inspector"},
        "options": [
            {"text": text, "value": text, "selected": text == "inspector"}
            for text in ("inspector", "operator")
        ],
    }


def _panel(kind: str, title: str, place: tuple[int, int, int, int]) -> dict[str, Any]:
    left, top, width, height = place
    return {
        "type": kind,
        "title": title,
        "datasource": _SOURCE,
        "gridPos": {"x": left, "y": top, "w": width, "h": height},
    }


def _target(query: str, legend: str, letter: str, *, instant: bool = False) -> dict[str, Any]:
    made = {"refId": letter, "datasource": _SOURCE, "expr": query, "legendFormat": legend}
    return made | {"instant": True, "range": False, "format": "table"} if instant else made


def _stat(
    title: str,
    query: str,
    left: int,
    top: int,
    *,
    unit: str = "short",
    steps: list[dict[str, Any]] | None = None,
    mappings: tuple[str, str] | None = None,
) -> dict[str, Any]:
    words = [
        {"type": "value", "options": {str(at): {"text": text} for at, text in enumerate(mappings or ())}}
    ]
    defaults = {
        "unit": unit,
        "thresholds": {"mode": "absolute", "steps": steps or [{"color": "text", "value": None}]},
        "mappings": words if mappings else [],
    }
    return _panel("stat", title, (left, top, 4, 5)) | {
        "targets": [_target(query, "", "A")],
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }


def _lines(
    title: str,
    left: int,
    top: int,
    width: int,
    *,
    unit: str,
    queries: tuple[tuple[str, str], ...],
    logarithmic: bool = False,
) -> dict[str, Any]:
    scale = {"type": "log", "log": 10} if logarithmic else {"type": "linear"}
    return _panel("timeseries", title, (left, top, width, 9 if top == 5 else 8)) | {
        "targets": [
            _target(query, legend, chr(ord("A") + number)) for number, (query, legend) in enumerate(queries)
        ],
        "fieldConfig": {"defaults": {"unit": unit, "custom": {"scaleDistribution": scale}}, "overrides": []},
    }


def _table(title: str, query: str, left: int, top: int) -> dict[str, Any]:
    hidden = {"Time": True, "__name__": True, "instance": True, "job": True}
    return _panel("table", title, (left, top, 8, 9)) | {
        "targets": [_target(query, "", "A", instant=True)],
        "transformations": [{"id": "organize", "options": {"excludeByName": hidden}}],
        "fieldConfig": {"defaults": {}, "overrides": []},
    }


if __name__ == "__main__":
    sys.exit(main())
