"""The JSON files beside a model's weights: whatever they hold, one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ullage.errors import UsageError
from ullage.model import settings
from ullage.model.settings import read_json, read_text


def test_a_file_that_is_not_there_is_an_empty_object(tmp_path: Path) -> None:
    assert read_text(tmp_path / "config.json") is None
    assert read_json(tmp_path / "config.json") == {}


@pytest.mark.parametrize("digits", [4300, 4301, 100_000])
def test_a_number_of_many_digits_is_read_or_refused(tmp_path: Path, digits: int) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"vocab_size": ' + "9" * digits + "}")
    if digits <= 4300:
        assert read_json(path)["vocab_size"] == 10**digits - 1
        return
    with pytest.raises(UsageError, match=r"config\.json is not JSON"):
        read_json(path)


@pytest.mark.parametrize("opening", ["[", '{"a": '])
def test_what_is_nested_too_deep_is_refused(tmp_path: Path, opening: str) -> None:
    (tmp_path / "config.json").write_text(opening * 100_000)
    with pytest.raises(UsageError, match="is not JSON"):
        read_json(tmp_path / "config.json")


@pytest.mark.timeout(20)
def test_what_is_no_file_of_a_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "long").write_bytes(b" " * 101)
    monkeypatch.setattr(settings, "_MAX_BYTES", 100)
    for name, reason in (("pipe", "plain file"), ("zero", "plain file"), ("long", "longer than 100")):
        with pytest.raises(UsageError, match=reason):
            read_text(tmp_path / name)
