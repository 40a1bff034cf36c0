"""An enforcer that stands still is an alarm within a second, and nothing is released meanwhile."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.enforce.conftest import CHUNK
from tests.enforce.enforcer_process import EnforcerProcess
from ullage.enforce.protocol import Hello
from ullage.enforce.reference import ChunkedReference
from ullage.tap.choices.enforcement import EnforcerClient
from ullage.tap.choices.enforcer_watch import EnforcerWatch
from ullage.tap.failures import Failure
from ullage.tap.gate import Gate

PROFILE = "murmur3-gumbel/f64"


@pytest.mark.slow
def test_an_enforcer_that_stands(tmp_path: Path, model_folder: Path, reference: ChunkedReference) -> None:
    gate, told = Gate(), list[str]()

    async def use(process: EnforcerProcess) -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        client = await EnforcerClient.connect(process.path, reference.identity.digest, PROFILE)
        watching = asyncio.ensure_future(EnforcerWatch(client, gate, told.append).run())
        assert process.process is not None
        await asyncio.sleep(0.6)
        before = len(told)
        begun = loop.time()
        process.process.send_signal(signal.SIGSTOP)
        while len(told) == before:
            await asyncio.sleep(0.01)
        alarm = loop.time() - begun
        process.process.send_signal(signal.SIGCONT)
        begun = loop.time()
        while len(told) == before + 1:
            await asyncio.sleep(0.01)
        watching.cancel()
        await client.close()
        return alarm, loop.time() - begun

    with EnforcerProcess(tmp_path / "socket", model_folder, chunk=CHUNK) as process:
        alarm, over = asyncio.run(use(process))
    assert alarm < 1.0
    assert over < 10.0
    assert "does not answer" in told[-2]
    assert "answers again" in told[-1]
    assert gate.alarms[Failure.ENFORCER_UNAVAILABLE] >= 1
    assert gate.reason is None  # those who wait are not cancelled: they go on


@pytest.mark.parametrize("speaks", [True, False])
def test_whoever_says_something_answers(tmp_path: Path, speaks: bool) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                if speaks:
                    connection.sendall(b"\x00" * 8)
                connection.settimeout(5)
                connection.recv(1024)

        thread = threading.Thread(target=serve)
        thread.start()
        client = EnforcerClient(path, Hello(bytes(32), PROFILE), lambda _: None)
        assert asyncio.run(client.answers(0.5)) is False  # no message of the protocol is no answer
        thread.join(10)
    assert asyncio.run(client.answers(0.5)) is False  # nobody listens any more
