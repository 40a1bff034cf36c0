"""The start page's own tap before an own server, command by command as printed, but for the ports."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.docs.pages import play
from tests.docs.printed import ROOT


@pytest.mark.slow
def test_the_start_page_does_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "src").symlink_to(ROOT / "src")
    began = time.monotonic()
    play("index.md", tmp_path, ports=("8000", "8080"), codes={"ullage audit": 3})
    assert time.monotonic() - began < 600
    page = (tmp_path / "mine" / "report.html").read_text("utf-8")
    assert "Cannot tell" in page
    assert "Signature checked" in page
    assert "Return the" in page
