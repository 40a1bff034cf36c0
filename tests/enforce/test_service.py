"""The enforcer as a process: what it answers, and what it does with a peer that misbehaves."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.enforce.conftest import CHUNK
from tests.enforce.enforcer_process import EnforcerProcess
from tests.support.tiny_model import CONTEXT, VOCABULARY, make_tiny_model
from ullage.enforce import protocol
from ullage.enforce.protocol import (
    CONNECTION,
    Abort,
    Answer,
    Begin,
    Check,
    Decode,
    ErrorCode,
    Finish,
    Finished,
    Hello,
    Refusal,
    ToEnforcer,
    ToTap,
    Welcome,
)
from ullage.enforce.rederive import Rederived, rederive
from ullage.enforce.reference import ChunkedReference
from ullage.errors import UsageError
from ullage.sampling.parameters import SamplingParameters
from ullage.tap.choices.enforcement import EnforcerClient, EnforcerError

PROFILE = "murmur3-gumbel/f64"
PROMPT = tuple(range(30, 50))


class Peer:
    """A tap that may say anything."""

    def __init__(self, path: Path, *, hello: Hello | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.welcome = self.ask(hello) if hello else None

    def say(self, message: ToEnforcer) -> None:
        self.socket.sendall(protocol.encode_request(message))

    def ask(self, message: ToEnforcer) -> ToTap | None:
        self.say(message)
        return self.hear()

    def hear(self) -> ToTap | None:
        """The next message; None at the end of the connection."""
        header = self._exactly(4)
        return protocol.parse_answer(self._exactly(protocol.frame_length(header))) if header else None

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                return b""
            data += piece
        return data

    def close(self) -> None:
        self.socket.close()


def hello(reference: ChunkedReference, **changes: object) -> Hello:
    fields: dict[str, object] = {
        "model_digest": bytes.fromhex(reference.identity.digest.removeprefix("sha256:")),
        "profile": PROFILE,
        **changes,
    }
    return Hello(**fields)  # type: ignore[arg-type]


def begin(request: int, seed: int = 1, max_tokens: int = 30) -> Begin:
    return Begin(request, seed, 0.9, 1.0, 0, max_tokens, PROMPT)


def known(reference: ChunkedReference, seed: int = 1, max_tokens: int = 30) -> Rederived:
    parameters = SamplingParameters(0.9)
    return rederive(reference, PROFILE, PROMPT, seed=seed, parameters=parameters, max_tokens=max_tokens)


def test_it_says_what_it_runs(enforcer: EnforcerProcess, reference: ChunkedReference) -> None:
    peer = Peer(enforcer.path, hello=hello(reference))
    assert isinstance(peer.welcome, Welcome)
    assert peer.welcome.reference_digest.hex() == reference.digest.removeprefix("sha256:")
    assert (peer.welcome.chunk, peer.welcome.vocabulary_size) == (CHUNK, VOCABULARY)
    assert (peer.welcome.context_length, peer.welcome.requests) == (CONTEXT, 6)
    assert enforcer.path.stat().st_mode & 0o777 == 0o600
    peer.close()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_digest": bytes(32)}, ErrorCode.MODEL),
        ({"profile": "greedy"}, ErrorCode.PROFILE),
        ({"reference_digest": b"\1" * 32}, ErrorCode.REFERENCE),
        ({"version": 2}, ErrorCode.VERSION),
    ],
)
def test_what_is_not_declared_is_refused(
    enforcer: EnforcerProcess, reference: ChunkedReference, change: dict[str, object], code: ErrorCode
) -> None:
    peer = Peer(enforcer.path, hello=hello(reference, **change))
    assert peer.welcome == Refusal(CONNECTION, code)
    assert peer.hear() is None


def test_checks_and_decoding_give_the_one_transcript(
    enforcer: EnforcerProcess, reference: ChunkedReference
) -> None:
    right = known(reference)
    peer = Peer(enforcer.path, hello=hello(reference))
    peer.say(begin(1))
    wrong = (*right.ids[:4], (right.ids[4] + 1) % VOCABULARY, *right.ids[5:10])
    assert peer.ask(Check(1, 0, wrong)) == Answer(1, 5, 4, right.ids[:5], None)
    assert peer.ask(Check(1, 5, right.ids[5:12])) == Answer(1, 12, 7, right.ids[5:12], None)
    assert peer.ask(Decode(1, 12, 3)) == Answer(1, 15, 0, right.ids[12:15], None)
    assert peer.ask(Check(1, 15, (protocol.CONNECTION & 0xFFFFFFFF,))) == Answer(
        1, 16, 0, right.ids[15:16], None
    )
    assert peer.ask(Decode(1, 16, CHUNK)) == Answer(1, 30, 0, right.ids[16:], "length")
    assert peer.ask(Check(1, 30, (1,))) == Answer(1, 30, 0, (), "length")
    assert peer.ask(Finish(1)) == Finished(1, 30, "length")
    assert peer.ask(Finish(1)) == Refusal(1, ErrorCode.UNKNOWN)
    peer.close()


def test_errors_of_one_request_leave_the_others(
    enforcer: EnforcerProcess, reference: ChunkedReference
) -> None:
    peer = Peer(enforcer.path, hello=hello(reference))
    peer.say(begin(1))
    assert peer.ask(begin(2, max_tokens=CONTEXT)) == Refusal(2, ErrorCode.IMPOSSIBLE)
    assert peer.ask(Begin(3, 1, -1.0, 1.0, 0, 5, PROMPT)) == Refusal(3, ErrorCode.IMPOSSIBLE)
    assert peer.ask(Begin(4, 1, 1.0, 1.0, 0, 5, (VOCABULARY,))) == Refusal(4, ErrorCode.IMPOSSIBLE)
    assert peer.ask(Check(9, 0, (1,))) == Refusal(9, ErrorCode.UNKNOWN)
    peer.say(begin(10))
    assert peer.ask(Check(10, 3, (1,))) == Refusal(10, ErrorCode.STEP)
    for number in range(11, 16):
        peer.say(begin(number))
    assert peer.ask(begin(16)) == Refusal(16, ErrorCode.FULL)
    peer.say(Abort(15))
    peer.say(begin(17))
    for number in (1, 17):
        assert peer.ask(Decode(number, 0, 2)) == Answer(number, 2, 0, known(reference).ids[:2], None)
    peer.close()


FRAME = struct.Struct(">IB")


@pytest.mark.parametrize(
    "raw",
    [
        (protocol.MAX_FRAME + 1).to_bytes(4, "big"),
        bytes(4),
        FRAME.pack(1, 99),
        FRAME.pack(1, 130),
        FRAME.pack(3, 3) + b"xx",
        protocol.encode_request(Decode(1, 0, 1)) + protocol.encode_request(Decode(1, 0, 1)),
        protocol.encode_request(Check(1, 0, (1,) * (CHUNK + 1))),
        protocol.encode_request(Hello(bytes(32), PROFILE)),
        protocol.encode_request(begin(1)),
    ],
    ids=["too long", "empty", "unknown kind", "an answer", "cut", "two at once", "too many drafts",
         "second hello", "number used twice"],
)  # fmt: skip
def test_what_breaks_the_protocol_ends_the_connection(
    enforcer: EnforcerProcess, reference: ChunkedReference, raw: bytes
) -> None:
    peer = Peer(enforcer.path, hello=hello(reference))
    peer.say(begin(1))
    peer.socket.sendall(raw)
    assert peer.hear() == Refusal(CONNECTION, ErrorCode.MALFORMED)
    assert peer.hear() is None


def test_a_first_message_that_is_no_hello(enforcer: EnforcerProcess) -> None:
    peer = Peer(enforcer.path)
    assert peer.ask(begin(1)) == Refusal(CONNECTION, ErrorCode.MALFORMED)


def test_a_peer_that_leaves_takes_its_requests_along(
    enforcer: EnforcerProcess, reference: ChunkedReference
) -> None:
    for _ in range(3):
        peer = Peer(enforcer.path, hello=hello(reference))
        for number in range(6):
            peer.say(begin(number, seed=number))
            peer.say(Decode(number, 0, CHUNK))
        peer.socket.sendall(b"\0\0")
        peer.close()
    peer = Peer(enforcer.path, hello=hello(reference))
    deadline = time.monotonic() + 30
    number = 0
    answer: ToTap | None = None
    while time.monotonic() < deadline:
        number += 1
        peer.say(begin(number))
        answer = peer.ask(Decode(number, 0, 1))
        if isinstance(answer, Answer):
            break
        time.sleep(0.05)
    assert answer == Answer(number, 1, 0, known(reference).ids[:1], None)
    peer.close()


def test_the_taps_client(enforcer: EnforcerProcess, reference: ChunkedReference) -> None:
    async def use() -> None:
        digest = reference.identity.digest
        for declared, profile in (("sha256:" + "0" * 64, PROFILE), (digest, "greedy")):
            with pytest.raises(UsageError, match="cannot be used"):
                await EnforcerClient.connect(enforcer.path, declared, profile)
        client = await EnforcerClient.connect(enforcer.path, digest, PROFILE, reference.digest)

        async def one(seed: int) -> tuple[int, ...]:
            request = await client.begin(
                PROMPT, seed=seed, temperature=0.9, top_p=1.0, top_k=0, max_tokens=30
            )
            tokens: tuple[int, ...] = ()
            assert request.span == CHUNK - (len(PROMPT) - 1) % CHUNK
            while request.finish_reason is None:
                tokens += (await request.decode(request.span)).tokens
            request.close()
            request.close()
            return tokens

        # Twelve at once at an enforcer that keeps six: the others wait.
        found = await asyncio.gather(*(one(seed) for seed in range(12)))
        assert found == [known(reference, seed).ids for seed in range(12)]
        await client.close()
        with pytest.raises(EnforcerError, match="enforcer"):
            await EnforcerClient.connect(enforcer.path.with_name("nobody"), digest, PROFILE)

    asyncio.run(use())


@pytest.mark.slow
def test_a_killed_enforcer_is_noticed_and_its_socket_replaced(
    tmp_path: Path, model_folder: Path, reference: ChunkedReference
) -> None:
    async def use(first: EnforcerProcess) -> None:
        client = await EnforcerClient.connect(first.path, reference.identity.digest, PROFILE)
        request = await client.begin(PROMPT, seed=1, temperature=0.9, top_p=1.0, top_k=0, max_tokens=30)
        await request.decode(2)
        assert first.process is not None
        first.process.kill()
        first.process.wait()
        with pytest.raises(EnforcerError):
            await request.decode(2)
        request.close()
        with EnforcerProcess(first.path, model_folder, chunk=CHUNK):
            again = await client.begin(PROMPT, seed=1, temperature=0.9, top_p=1.0, top_k=0, max_tokens=30)
            assert (await again.decode(3)).tokens == known(reference).ids[:3]
            await client.close()

    with EnforcerProcess(tmp_path / "socket", model_folder, chunk=CHUNK) as first:
        asyncio.run(use(first))


def test_a_socket_that_is_taken(tmp_path: Path, enforcer: EnforcerProcess, model_folder: Path) -> None:
    from ullage.enforce.run import bind

    file = tmp_path / "file"
    file.write_text("not a socket")
    for path, complaint in (
        (enforcer.path, "already"),
        (file, "no socket"),
        (tmp_path / "no" / "folder", "cannot listen"),
    ):
        with pytest.raises(UsageError, match=complaint):
            bind(path)
    assert file.read_text() == "not a socket"


def test_the_taps_side_needs_no_torch() -> None:
    code = (
        "import sys, ullage.tap.choices.enforcement, ullage.tap.choices.draft;"
        "import ullage.tap.pacing.enforced, ullage.tap.choices.enforced;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_another_model_has_another_digest(tmp_path: Path, reference: ChunkedReference) -> None:
    other = ChunkedReference.load(make_tiny_model(tmp_path / "other", seed=1), chunk=CHUNK)
    assert other.identity.digest != reference.identity.digest
    assert other.digest == reference.digest
