"""The notebook runs from top to bottom, and draws."""

from __future__ import annotations

import json

import pytest

from tests.docs.printed import ROOT

PATH = ROOT / "examples" / "notebooks" / "audit-a-log.ipynb"


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(PATH.read_text("utf-8"))["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.slow
def test_it_runs_and_draws() -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient comes with the group dev")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(PATH, as_version=4)
    nbclient.NotebookClient(notebook, timeout=280, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = "".join(output.get("text", "") for output in outputs)
    assert "pass: " in texts
    assert "token.mismatch_rate: 0 share of tokens" in texts
    assert "report.html" in texts
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
