"""The whole way between processes: a log is served, witnessed, verified and proved by others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.log.processes import serving, ullage
from tests.log.published import LOG, ORIGIN, log_entries, publish, put
from ullage.log.notes.cosignature import WitnessVerifier
from ullage.log.witness.witness import hash_of

ENTRIES = log_entries(614)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("served") / "log"
    publish(directory, ENTRIES)
    put(directory, "log.pub", f"{LOG.verifier}\n".encode())
    put(directory, "sealed/0.segment", b"secret")
    put(directory.parent, "secret", b"secret")
    return directory


@pytest.fixture(scope="module")
def url(log: Path) -> Iterator[str]:
    with serving("log", "serve", log) as url:
        yield url


@pytest.fixture(scope="module")
def key(log: Path) -> Path:
    return log / "log.pub"


def test_a_served_log_verifies(url: str, key: Path) -> None:
    result = ullage("log", "verify", url, "--key", key)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith(f"pass: {len(ENTRIES)} of {len(ENTRIES)} entries signed")
    again = ullage("log", "verify", url + "/", "--json")
    assert again.returncode == 0
    assert [one["code"] for one in json.loads(again.stdout)["findings"]] == ["key-from-log"]
    assert "vouches for itself" in again.stderr


def test_types_and_caches(url: str) -> None:
    checkpoint = httpx.get(f"{url}/checkpoint")
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    assert "max-age=1," in checkpoint.headers["cache-control"]
    tile = httpx.get(f"{url}/tile/0/000")
    assert (len(tile.content), tile.headers["content-type"]) == (8192, "application/octet-stream")
    assert "immutable" in tile.headers["cache-control"]
    assert "content-encoding" not in tile.headers
    bundle = httpx.get(f"{url}/tile/entries/000", headers={"accept-encoding": "gzip"})
    assert bundle.headers["content-encoding"] == "gzip"
    plain = httpx.get(f"{url}/tile/entries/000", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert bundle.content == plain.content
    assert int(bundle.headers["content-length"]) < len(plain.content) / 2
    assert httpx.head(f"{url}/checkpoint").status_code == 200
    assert httpx.post(f"{url}/checkpoint").status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "", "sealed/0.segment", "tile/../sealed/0.segment", "tile/%2e%2e/sealed/0.segment", "../secret",
        "tile/0/..%2f..%2f..%2fsecret", "tile/..%5csealed", "tile/0/000%00", "tile//0/000", "tile/0/999",
        "tile/0/000.p/7", "tile/0", "tile/entries", "checkpoint/", "checkpoint.new", "%2e%2e/secret",
        "tile/0/000/",
    ],
)  # fmt: skip
def test_nothing_else_is_served(url: str, path: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    import http.client

    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", f"/{path}")  # as it is: httpx would normalise it
    answer = connection.getresponse()
    assert answer.status in (404, 307)
    assert b"secret" not in answer.read()
    connection.close()


def test_a_proof_of_a_record(url: str, key: Path, tmp_path: Path) -> None:
    proof = tmp_path / "record.tlog-proof"
    assert ullage("log", "prove", url, "300", "--key", key, "--out", proof).returncode == 0
    result = ullage("log", "verify", proof, "--key", key, "--json")
    document = json.loads(result.stdout)
    assert (result.returncode, document["verdict"], document["entry"]["counter"]) == (0, "pass", 300)
    proof.write_bytes(proof.read_bytes().replace(b"index ", b"index 1"))
    assert ullage("log", "verify", proof, "--key", key).returncode == 1
    assert ullage("log", "verify", proof).returncode == 2


def test_growth_and_a_fork(url: str, log: Path, key: Path, tmp_path: Path) -> None:
    publish(tmp_path / "old", ENTRIES[:700])
    publish(tmp_path / "fork", [*ENTRIES[:699], b"another"])
    same = ullage("log", "verify", url, "--key", key, "--from", tmp_path / "old" / "checkpoint")
    assert (same.returncode, same.stdout.split(":")[0]) == (0, "pass")
    fork = ullage(
        "log", "verify", url, "--key", key, "--from", tmp_path / "fork" / "checkpoint",
        "--evidence", tmp_path / "evidence", "--json",
    )  # fmt: skip
    document = json.loads(fork.stdout)
    assert fork.returncode == 1
    assert [one["code"] for one in document["findings"]] == ["equivocation"]
    (file,) = document["evidence"]
    convicted = ullage("log", "verify", file, "--key", key)
    assert convicted.returncode == 1
    assert "signed two histories" in convicted.stdout
    data = Path(file).read_text().replace(str(len(ENTRIES)), "1000")
    Path(file).write_text(data)
    assert ullage("log", "verify", file, "--key", key).returncode == 3


@pytest.fixture(scope="module")
def witnesses(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Iterator[list[tuple[str, Path]]]:
    """Three witnesses: their URLs and public keys."""
    folder = tmp_path_factory.mktemp("witnesses")
    with ExitStack() as stack:
        found = []
        for number in range(3):
            keys = folder / f"keys{number}"
            made = ullage("keys", "init", keys, "--role", "witness", "--name", f"w{number}.example")
            assert made.returncode == 0
            assert (keys / "witness.key").stat().st_mode & 0o777 == 0o600
            command = ("log", "witness", "--keys", keys, "--state", folder / f"state{number}", "--log", key)
            found.append((stack.enter_context(serving(*command, "--new")), keys / "witness.pub"))
        yield found


def policy_file(path: Path, witnesses: list[tuple[str, Path]]) -> Path:
    lines = [f"log {LOG.verifier}"]
    lines += [
        f"witness w{number} {key.read_text().strip()} {url}" for number, (url, key) in enumerate(witnesses)
    ]
    path.write_text("\n".join([*lines, "group g 2 w0 w1 w2", "quorum g", ""]))
    return path


def test_a_witness_begins_once_and_then_starts_without_being_told(tmp_path: Path, key: Path) -> None:
    keys = tmp_path / "keys"
    assert ullage("keys", "init", keys, "--role", "witness", "--name", "w.example").returncode == 0
    command = ("log", "witness", "--keys", keys, "--state", tmp_path / "state", "--log", key)
    assert ullage(*command).returncode != 0, "a witness without a state must not start"
    assert ullage(*command, "--new-only").returncode == 0
    assert ullage(*command, "--new-only").returncode != 0, "a state must not be begun twice"
    with serving(*command):
        pass


def test_two_of_three_witnesses(tmp_path: Path, key: Path, witnesses: list[tuple[str, Path]]) -> None:
    log = tmp_path / "log"
    publish(log, ENTRIES[:1000])
    put(log, "sealed/lock", b"")
    policy = policy_file(tmp_path / "policy", [*witnesses[:2], ("http://127.0.0.1:1", witnesses[2][1])])
    before = ullage("log", "verify", log, "--policy", policy)
    assert (before.returncode, "cosignatures" in before.stdout) == (1, True)

    cosigned = ullage("log", "cosign", log, "--policy", policy)
    assert cosigned.returncode == 0, cosigned.stderr
    assert "w2.example: " in cosigned.stderr  # the third cannot be reached
    assert "cosigned by w0.example, w1.example" in cosigned.stdout
    assert (log / "checkpoint").read_bytes() == (log / "cosigned").read_bytes()
    assert ullage("log", "verify", log, "--policy", policy).returncode == 0
    proof = tmp_path / "p.tlog-proof"
    assert ullage("log", "prove", log, "10", "--policy", policy, "--out", proof).returncode == 0
    verified = ullage("log", "verify", proof, "--policy", policy)
    assert "witnessed by w0.example, w1.example" in verified.stdout

    publish(log, ENTRIES)
    grown = ullage("log", "verify", log, "--policy", policy)
    assert grown.returncode == 3
    assert "1000 witnessed" in grown.stdout
    for _ in range(2):  # a second time nothing is new
        assert ullage("log", "cosign", log, "--policy", policy).returncode == 0
    assert ullage("log", "verify", log, "--policy", policy).returncode == 0
    seen = httpx.get(f"{witnesses[0][0]}/{hash_of(ORIGIN)}/checkpoint")
    verifier = WitnessVerifier.parse(witnesses[0][1].read_text().strip())
    assert seen.status_code == 200
    assert verifier.name in seen.text

    publish(log, [*ENTRIES[:-1], b"another"])
    forked = ullage("log", "cosign", log, "--policy", policy)
    assert forked.returncode == 1
    assert "saw another history" in forked.stderr
    publish(log, ENTRIES[:1000])
    cut = ullage("log", "cosign", log, "--policy", policy, "--json")
    assert cut.returncode == 1
    assert "it was cut back" in json.loads(cut.stdout)["refused"][0]["reason"]


def test_what_the_witness_says_over_http(witnesses: list[tuple[str, Path]]) -> None:
    url = witnesses[0][0]
    assert httpx.get(f"{url}/{'0' * 64}/checkpoint").status_code == 404
    assert httpx.get(f"{url}/..%2fwitness/checkpoint").status_code == 404
    assert httpx.get(f"{url}/add-checkpoint").status_code == 405
    assert httpx.post(f"{url}/add-checkpoint", content=b"nonsense").status_code == 400
    assert httpx.post(f"{url}/add-checkpoint", content=bytes(1 << 20)).status_code == 413


def test_wrong_use_is_told(tmp_path: Path, log: Path, key: Path) -> None:
    for arguments, reason in (
        (("log", "verify", log, "--key", key, "--policy", key), "--key or --policy"),
        (("log", "verify", tmp_path / "nowhere", "--key", key), "no folder"),
        (("log", "cosign", log, "--key", key), "No witness to ask"),
        (("log", "cosign", log, "--witness", "http://x"), "one --witness-key"),
        (("log", "serve", tmp_path / "nowhere"), "no folder"),
    ):
        result = ullage(*arguments)
        assert (result.returncode, reason in result.stderr) == (2, True), result.stderr
