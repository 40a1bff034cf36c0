"""Drafts of an isolated server, metered: whole answers, which the reference's own tokens explain."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.network import lab
from tests.network.isolated_tap import ENVIRONMENT, ULLAGE, isolated_tap, metered, wait_for_closes


@lab.needs_namespaces
def test_every_byte_of_honest_drafts_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "enforcer.socket"
    command = [*ULLAGE, "enforcer", "--socket", str(path), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as enforcer:
        try:
            assert enforcer.stdout is not None
            assert enforcer.stdout.readline().startswith("listening on ")
            with isolated_tap(tmp_path, "--enforce", str(path)) as tap:
                with metered(tap) as found:
                    tap.ask()
                    tap.ask(stream=True, max_tokens=70)
                    tap.hang_up()
                    tap.hang_up(stream=True)
                    wait_for_closes(tap, 4)
                tap.stop()
        finally:
            enforcer.kill()
    closes = [record.close for record in tap.records() if record.close is not None]
    assert [close.outcome for close in closes].count("client-gone") == 2
    assert all(" 0 replaced" in close.detail or "0 of" in close.detail for close in closes), [
        close.detail for close in closes
    ]
    assert found["unexplained_by_reason"] == {}
    assert found["exit"] == 0
