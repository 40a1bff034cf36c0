"""Drafts that come as one answer (`--link whole`): the same transcript, whatever the server does."""

from __future__ import annotations

from pathlib import Path

from tests.enforce.enforcer_process import EnforcerProcess
from tests.enforce.enforcing_tap import LENGTH, Tap, known
from tests.enforce.test_tap import behaviours
from tests.tap.scripted_upstream import ScriptedUpstream
from ullage.enforce.reference import ChunkedReference

STALLED = "50 decoded alone; no whole answer in time"


def test_every_server_gives_the_references_answer(
    tmp_path: Path, enforcer: EnforcerProcess, model_folder: Path, reference: ChunkedReference
) -> None:
    asked = behaviours(reference)
    stalls = asked.pop("50 decoded alone; no response in time")
    asked.pop("19 drafted, 0 replaced, 31 decoded alone; a pause in the response that is too long")
    asked[STALLED] = stalls
    with (
        ScriptedUpstream() as upstream,
        Tap(tmp_path, upstream, enforcer, model_folder, link="whole", total_timeout=3.0) as tap,
    ):
        for behaviour in asked.values():
            upstream.behaviour = behaviour
            assert tap.ask(stream=True).status_code == 200
        assert all(body["stream"] is False and body["only_token_ids"] for body in upstream.requests)
        for record, detail in zip(tap.records(), asked, strict=True):
            right = known(reference, record.open.seed)
            assert record.output_ids == right.ids
            assert record.close is not None
            assert record.close.outcome == "complete"
            if len(right.ids) == LENGTH:
                assert detail in record.close.detail
