"""On a metered link an answer is read to its end, whoever has gone, and the tap's own end waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream, text_ids
from tests.tap.small_tokenizer import EOS
from tests.tap.tap_process import TapProcess
from ullage.errors import FaultError
from ullage.network.journal import CloseEntry, ExchangeEntry, JournalReader, WireJournal

ANSWER = [*text_ids("an answer that takes its time"), EOS]


def test_a_tap_that_is_stopped_reads_what_its_server_has_begun(tmp_path: Path) -> None:
    """Past the grace for requests: a record that said less than the wire would leave bytes unexplained."""

    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(4)
        await exchange.answer(ANSWER)

    journal = tmp_path / "wire.journal"
    options = {"paths": {"wire_journal": str(journal)}, "link": "whole", "grace": 1}
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, **options) as tap:
        upstream.behaviour = slow
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"}, timeout=0.5)
        assert tap.stop() == (0, "")
        tap.assert_sound()
        (record,) = tap.records()
    assert record.close is not None
    assert record.close.outcome == "client-gone"
    assert list(record.output_ids) == ANSWER
    (exchange,) = [one for one in JournalReader(journal).poll() if isinstance(one, ExchangeEntry)]
    assert exchange.counter == record.counter
    assert exchange.received.bytes == record.close.bytes_from_upstream


def test_what_is_given_up_is_ended_before_the_journal(tmp_path: Path) -> None:
    """The client waits on while the tap stops: its record is aborted, its connection's end is journaled."""

    async def silent(exchange: Exchange) -> None:
        await exchange.until_closed()

    journal = tmp_path / "wire.journal"
    options = {"paths": {"wire_journal": str(journal)}, "link": "whole", "grace": 1}
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, **options) as tap:
        upstream.behaviour = silent
        answers: list[httpx.Response] = []
        url = f"{tap.url}/v1/completions"
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(url, json={"prompt": "a"}, timeout=20))
        )
        asking.start()
        deadline = time.monotonic() + 10
        while not upstream.requests:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert tap.stop() == (0, "")
        asking.join()
        tap.assert_sound()
        (record,) = tap.records()
    assert record.close is not None
    assert record.close.outcome == "aborted"
    assert isinstance(JournalReader(journal).poll()[-1], CloseEntry)


def test_a_journal_that_is_closed_takes_nothing(tmp_path: Path) -> None:
    journal = WireJournal(tmp_path / "wire.journal", "log")
    connection = journal.connect(("127.0.0.1", 1), ("127.0.0.1", 2))
    journal.close()
    # The other file has the number that the journal's had.
    with (tmp_path / "another").open("wb"), pytest.raises(FaultError):
        connection.exchanged(1)
    assert (tmp_path / "another").read_bytes() == b""
