"""An enforcer that ends in the middle of a pass ends quietly."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tests.enforce.conftest import CHUNK
from tests.enforce.test_service import PROFILE, begin, hello
from ullage.enforce import protocol
from ullage.enforce.chunked import Chunk
from ullage.enforce.protocol import Check
from ullage.enforce.reference import ChunkedReference
from ullage.enforce.service import Limits, Service
from ullage.sampling.profiles import get_profile


def test_an_answer_after_the_end_is_no_fault(
    reference: ChunkedReference, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loop has ended while a pass was computed; what it found is for nobody."""
    computing, go_on = threading.Event(), threading.Event()
    compute = reference.computer.compute

    def held(chunks: Sequence[Chunk]) -> Any:
        computing.set()
        assert go_on.wait(20)
        return compute(chunks)

    monkeypatch.setattr(reference.computer, "compute", held)
    service = Service(reference, get_profile(PROFILE), Limits(memory_positions=1024), 1)

    async def ask_and_end() -> None:
        service.start()
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        handling = asyncio.ensure_future(service.handle(reader, writer))
        for message in (hello(reference), begin(0), Check(0, 0, (1,) * CHUNK)):
            ours.sendall(protocol.encode_request(message))
        while not computing.is_set():
            await asyncio.sleep(0.01)
        handling.cancel()
        await asyncio.gather(handling, return_exceptions=True)
        ours.close()

    asyncio.run(ask_and_end())
    go_on.set()
    service.worker.stop()
    assert capsys.readouterr().err == ""
