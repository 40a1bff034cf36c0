"""Metrics, health, keys, TLS, budgets, caps, configuration: on a real tap where one is needed."""

from __future__ import annotations

import asyncio
import datetime
import json
import resource
import socket
import ssl
import stat
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream, text_ids
from tests.tap.small_tokenizer import EOS
from tests.tap.tap_process import TapProcess
from ullage.errors import UsageError
from ullage.tap.clients.api_keys import ApiKeys, new_key
from ullage.tap.clients.budgets import Budgets
from ullage.tap.config import read_config
from ullage.tap.explain import explain
from ullage.tap.failures import RequestRefusedError
from ullage.tap.operations.metrics import DECLARATION, MetricsPage
from ullage.tap.pacing.schedule import read_sentence
from ullage.tap.past import past_of
from ullage.tap.run import _listen
from ullage.tap.units import parse_duration, parse_rate, parse_share, parse_size
from ullage.tap.upstream.cap import TokenBucket

DAY = 86_400 * 10**9


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _post(tap: TapProcess, n: int = 1, **options: Any) -> httpx.Response:
    return httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", "n": n}, timeout=30, **options)


def test_the_operators_address(tmp_path: Path) -> None:
    port = _free_port()
    settings = {"operations": f"127.0.0.1:{port}"}
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, settings=settings) as tap:
        there = f"http://127.0.0.1:{port}"
        assert _post(tap).status_code == 200
        assert httpx.get(f"{there}/healthz").text == "alive\n"
        assert httpx.get(f"{there}/readyz").text == "ready\n"
        page = httpx.get(f"{there}/metrics")
        assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert set(page.headers) == {"content-type", "content-length"}
        assert "# TYPE ullage_tap_requests_total counter" in page.text
        assert "ullage_tap_requests_total 0\n" in page.text  # one request is less than a quantum
        assert httpx.get(f"{there}/v1/models").status_code == 404
        assert httpx.post(f"{there}/metrics").status_code == 405
        assert httpx.get(f"{tap.url}/metrics").status_code == 404  # not for clients
        assert tap.stop() == (0, "")


def test_metrics_are_quantised_and_counted() -> None:
    now, true = 0.0, {"requests_total": 0.0}
    page = MetricsPage(lambda: true, lambda: now)

    def shown() -> int:
        (line,) = [
            line for line in page.page().decode().splitlines() if line.startswith("ullage_tap_requests")
        ]
        return int(line.split()[1])

    assert shown() == 0
    true["requests_total"] = 12_399
    assert shown() == 0  # nothing new before the next fixed time, however often it is read
    now += 60
    assert shown() == 12_300
    true["requests_total"] = 1e12
    now += 60
    assert shown() == 12_300 + 4095 * 100
    assert page.snapshots == 3
    assert page.bits == pytest.approx(3 * DECLARATION.bits_per_sample)


def test_keys_of_clients(tmp_path: Path) -> None:
    (first, line), (second, other) = new_key("alice"), new_key("bob.2")
    file = tmp_path / "clients"
    file.write_text(f"# clients\n{line}\n{other}  # a comment\n")
    keys = ApiKeys(file)
    assert keys.client_of(b"Bearer " + first.encode()) == "alice"
    assert keys.client_of(b"bearer " + second.encode()) == "bob.2"
    for wrong in (None, b"", b"Bearer", b"Bearer x", first.encode(), b"Basic " + first.encode(),
                  b"Bearer " + first.encode() + b" ", b"Bearer " + b"y" * 10_000):  # fmt: skip
        assert keys.client_of(wrong) is None
    file.write_text(line + "\n")
    assert keys.client_of(b"Bearer " + second.encode()) is None
    file.unlink()
    assert keys.client_of(b"Bearer " + first.encode()) is None
    assert first not in line


@pytest.mark.parametrize(
    "text", ["", "alice", "alice md5:00", "a b sha256:" + "0" * 64, "alice sha256:" + "0" * 63]
)
def test_files_that_hold_no_keys(tmp_path: Path, text: str) -> None:
    (tmp_path / "clients").write_text(text)
    with pytest.raises(UsageError):
        ApiKeys(tmp_path / "clients")
    with pytest.raises(UsageError, match="no name"):
        new_key("two words")


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, made on the spot."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = folder / "tls.pem", folder / "tls.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    paths[1].write_bytes(private)
    return paths


def test_tls_and_keys(tmp_path: Path) -> None:
    key, line = new_key("alice")
    (tmp_path / "clients").write_text(line + "\n")
    certificate, private = _certificate(tmp_path)
    paths = {
        "api_keys": str(tmp_path / "clients"),
        "tls_certificate": str(certificate),
        "tls_key": str(private),
    }
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, paths=paths) as tap:
        assert tap.url.startswith("https://127.0.0.1:")
        tap.url = tap.url.replace("127.0.0.1", "localhost")
        context = ssl.create_default_context(cafile=str(certificate))
        assert _post(tap, verify=context, headers={"authorization": f"Bearer {key}"}).status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}):
            refused = _post(tap, verify=context, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
        models = httpx.get(f"{tap.url}/v1/models", verify=context)
        assert models.status_code == 401
        code, errors = tap.stop()
        assert (code, errors) == (0, "")
        assert len(tap.records()) == 1


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 3)), min_size=1, max_size=60))
@settings(deadline=None)
def test_no_window_carries_more_than_the_bucket(pieces: list[tuple[int, float]]) -> None:
    rate, burst, now = 1000.0, 2000.0, 0.0
    bucket = TokenBucket(rate, burst, lambda: now)
    passed: list[tuple[float, int]] = []
    for size, pause in pieces:
        wait = bucket.reserve(size)
        passed.append((now + wait, size))
        now += wait + pause
    for start in range(len(passed)):
        total = 0
        for moment, size in passed[start:]:
            total += size
            allowed = burst + rate * (moment - passed[start][0]) + passed[start][1]
            assert total <= allowed + 1e-3


def test_the_cap_holds_on_the_link(tmp_path: Path) -> None:
    """A server that sends as fast as it can: its bytes pass at the cap's rate."""

    async def verbose(exchange: Exchange) -> None:
        choice = {"index": 0, "text": "x" * 60_000, "token_ids": [*text_ids("ok"), EOS]}
        await exchange.whole(json.dumps({"choices": [choice]}).encode())

    settings = {"cap": 40_000.0}
    with ScriptedUpstream() as upstream, TapProcess(
        tmp_path, upstream.url, settings=settings, timeouts={"total": 60.0}
    ) as tap:  # fmt: skip
        upstream.behaviour = verbose
        began = time.monotonic()
        assert _post(tap).status_code == 200
        seconds = time.monotonic() - began
        close = tap.closed().close
        assert close is not None
        received = close.bytes_from_upstream or 0
        assert received > 60_000
        assert seconds >= (received - 8192) / 40_000 - 0.05
        assert tap.stop() == (0, "")


def test_a_queue_that_is_too_long_is_refused(tmp_path: Path) -> None:
    settings = {"cap": 4000.0, "cap_patience": 1.0}
    with ScriptedUpstream() as upstream, TapProcess(
        tmp_path, upstream.url, settings=settings, timeouts={"total": 60.0}
    ) as tap:  # fmt: skip

        async def ask() -> tuple[list[int], httpx.Response]:
            async with httpx.AsyncClient(timeout=60) as client:
                body = {"prompt": "x" * 400, "max_tokens": 4}
                waiting = [
                    asyncio.ensure_future(client.post(f"{tap.url}/v1/completions", json=body))
                    for _ in range(8)
                ]
                await asyncio.sleep(0.5)  # 14 kB are in front of the next one
                refused = await client.post(f"{tap.url}/v1/completions", json=body)
                return [answer.status_code for answer in await asyncio.gather(*waiting)], refused

        waited, refused = asyncio.run(ask())
        assert waited == [200] * 8
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert len(tap.records()) == 8  # the refused one took no counter
        assert tap.stop() == (0, "")


def test_waiting_for_the_cap_is_not_the_servers_lateness(tmp_path: Path) -> None:
    """One client's long prompts hold up the others. The server answers at once, and has no allowance."""
    with ScriptedUpstream() as upstream, TapProcess(
        tmp_path, upstream.url, settings={"cap": 4000.0}, timeouts={"total": 60.0},
        pace={"slot": 0.05, "lead": 2}, allowance={"share": 0.0, "burst": 0.0, "drip": 0.0},
    ) as tap:  # fmt: skip

        async def ask() -> list[int]:
            async with httpx.AsyncClient(timeout=60) as client:
                long, short = {"prompt": "x" * 400, "max_tokens": 4}, {"prompt": "x", "max_tokens": 4}
                asked = [
                    asyncio.ensure_future(client.post(f"{tap.url}/v1/completions", json=body))
                    for body in [long] * 7 + [short]
                ]
                return [answer.status_code for answer in await asyncio.gather(*asked)]

        assert asyncio.run(ask()) == [200] * 8  # all would be 503 had it been the server's
        details = [record.close.detail for record in tap.records() if record.close is not None]
        steps, beyond = zip(*map(read_sentence, details), strict=True)
        assert sum(steps) == 0
        assert sum(beyond) > 0  # what held them up is counted all the same
        assert tap.stop() == (0, "")


def test_choices_are_counted_and_not_requests(tmp_path: Path) -> None:
    """Each is a connection to the server, and an answer that is held until it is whole."""
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, max_active=4) as tap:
        assert _post(tap, n=4).status_code == 200
        refused = _post(tap, n=5)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert _post(tap, n=4).status_code == 200  # nothing is left over
        assert len(tap.records()) == 8
        assert tap.stop() == (0, "")


def test_a_tap_without_files_does_not_blame_the_server(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, max_active=64) as tap:
        assert tap.process is not None
        open_files = len(list(Path(f"/proc/{tap.process.pid}/fd").iterdir()))
        resource.prlimit(tap.process.pid, resource.RLIMIT_NOFILE, (open_files + 12, open_files + 12))
        assert _post(tap, n=16).status_code in (500, 503)  # a connection or the log, whichever was last
        outcomes = {record.close.outcome for record in tap.records() if record.close is not None}
        assert "upstream-failed" not in outcomes
        tap.stop()


def test_budgets_of_a_day(tmp_path: Path) -> None:
    budgets = Budgets(a_client=100, a_day=150)
    budgets.admit("a", 0)
    budgets.charge("a", 100, 0)
    with pytest.raises(RequestRefusedError):
        budgets.admit("a", 0)
    budgets.admit("b", 0)
    budgets.charge("b", 60, 0)
    with pytest.raises(RequestRefusedError):
        budgets.admit("c", 0)
    budgets.admit("c", DAY)
    budgets.charge("c", 200, DAY)
    with pytest.raises(RequestRefusedError):  # a clock that goes back gives nothing anew
        budgets.admit("c", 0)
    with ScriptedUpstream() as upstream, TapProcess(
        tmp_path, upstream.url, settings={"client_day_bytes": 500}
    ) as tap:  # fmt: skip
        codes = [_post(tap).status_code for _ in range(4)]
        assert codes == [200, 200, 429, 429]
        assert tap.stop() == (0, "")
        assert len(tap.records()) == 2


def test_the_budget_of_all_goes_on_after_a_restart(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        with TapProcess(tmp_path, upstream.url, settings={"day_bytes": 500}) as tap:
            assert [_post(tap).status_code for _ in range(3)] == [200, 200, 429]
            tap.stop()
        with TapProcess(tmp_path, upstream.url, settings={"day_bytes": 500}) as tap:
            assert _post(tap).status_code == 429
            tap.stop()
        records = tap.records()
    assert len(records) == 2
    now = records[-1].open.time_received
    released = sum(record.close.bytes_to_client or 0 for record in records if record.close)
    assert past_of(records, now).released == released > 500
    assert past_of(records, now + DAY).released == 0


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [(parse_duration, "250ms", 0.25), (parse_duration, 2, 2.0), (parse_duration, "1h", 3600.0),
     (parse_size, "1MiB", 1 << 20), (parse_size, "100KB", 100_000), (parse_size, 7, 7),
     (parse_rate, "100KB/s", 1e5), (parse_rate, "1.5MB/s", 1.5e6),
     (parse_share, "2%", 0.02), (parse_share, 0.5, 0.5)],
)  # fmt: skip
def test_units(read: Any, text: object, value: float) -> None:
    assert read(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "x", "-1s", "1 parsec", True, "1e999", "nan", "5KB"])
def test_units_that_are_none(text: object) -> None:
    with pytest.raises(ValueError, match=r"unit|number"):
        parse_duration(text)


BASE = {"upstream": "http://127.0.0.1:1", "log": "log", "keys": "keys"}


def test_sources_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tap.toml"
    file.write_text(
        'upstream = "http://127.0.0.1:1"\nlog = "log"\nkeys = "keys"\nslot = "100ms"\npad_to = 32\n'
    )
    monkeypatch.setenv("ULLAGE_TAP_PAD_TO", "48")
    monkeypatch.setenv("ULLAGE_TAP_LEAD", "5")
    config = read_config({"lead": "7", "cap": None}, file)
    assert (config.slot, config.pad_to, config.lead) == (0.1, 48, 7)
    assert config.link_form.form == "whole"
    monkeypatch.setenv("ULLAGE_TAP_PADTO", "1")
    with pytest.raises(UsageError, match="ULLAGE_TAP_PADTO"):
        read_config({}, file)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [({"slot": "1ms"}, "at least 10ms"), ({"dtype": "int8"}, "dtype"), ({"tls_key": "x"}, "go together"),
     ({"reference_digest": "x"}, "goes with enforce"), ({"upstream": None}, "--upstream is missing"),
     ({"telemetry": "x"}, "go together"), ({"late_share": "200%"}, "at most 1"),
     ({"order": "random"}, "order")],
)  # fmt: skip
def test_configurations_that_cannot_be(flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_config({**BASE, **flags}, None)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "tap.toml"
    for text in ('slott = "1s"\n', "no toml ["):
        file.write_text(text)
        with pytest.raises(UsageError):
            read_config(BASE, file)
    with pytest.raises(UsageError, match="not a file"):
        read_config(BASE, tmp_path / "nothing")


def test_check_says_what_is_open() -> None:
    lines = "\n".join(explain(read_config({**BASE, "listen": "0.0.0.0:80"}, None)))
    for warning in ("no TLS", "no API keys", "no --cap", "whatever the server likes"):
        assert f"WARNING: {warning}" in lines or warning in lines
    closed = {"slot": "250ms", "pad_to": 64, "cap": "100KB/s"}
    lines = "\n".join(explain(read_config({**BASE, **closed}, None)))
    warnings = [line for line in lines.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 2
    assert "does not isolate" in warnings[0]  # that takes permissions: tests/network
    assert "no --wire-journal" in warnings[1]
    assert "bits a release" in lines


def test_the_probe_of_a_disk_leaves_nothing(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url) as tap:
        assert tap.stop() == (0, "")
    assert not (tap.log / ".probe").exists()
    assert not stat.S_IMODE((tap.keys / "seed.key").stat().st_mode) & 0o077


@pytest.mark.parametrize(
    "where",
    ["127.0.0.1:²", "127.0.0.1:٣", "127.0.0.1:" + "9" * 5000, ":80", "host", "a:65536"],
    ids=lambda where: where[:16],
)
def test_what_is_no_address_to_listen_on(where: str) -> None:
    with pytest.raises(UsageError, match="is not HOST:PORT"):
        _listen(where)
