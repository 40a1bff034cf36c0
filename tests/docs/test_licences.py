"""Nothing that Ullage is installed with is under the GPL alone."""

from __future__ import annotations

import subprocess
import sys
from email.message import Message
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
from tools.licences import allowed, closure, declared, licences

from tests.docs.printed import ROOT


class _Told(Distribution):
    """A distribution that says only what it is told to say."""

    def __init__(self, *fields: tuple[str, str]) -> None:
        self._message = Message()
        for name, value in fields:
            self._message[name] = value

    @property
    def metadata(self) -> Any:
        return self._message

    def read_text(self, filename: str) -> str | None:
        return None

    def locate_file(self, path: Any) -> Path:
        return Path(str(path))


def test_nothing_that_is_installed_is_under_the_gpl_alone() -> None:
    script = [sys.executable, str(ROOT / "tools" / "licences.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_what_others_require_is_looked_at_too() -> None:
    found = closure(declared())
    assert {"torch", "cryptography", "pyroute2", "cffi"} <= set(found)  # cffi only through cryptography
    assert "GPL-2.0-or-later" in licences(found["pyroute2"])
    assert allowed(licences(found["pyroute2"]))  # Apache-2.0 is the other choice


@pytest.mark.parametrize(
    ("fields", "fine"),
    [
        ([("License-Expression", "GPL-3.0-only")], False),
        ([("License-Expression", "MIT AND GPL-2.0-or-later")], False),
        ([("License-Expression", "GPL-2.0-or-later OR Apache-2.0")], True),
        ([("License-Expression", "LGPL-2.1-only")], True),
        ([("Classifier", "License :: OSI Approved :: GNU Affero General Public License v3")], False),
        ([("Classifier", "License :: OSI Approved :: MIT License")], True),
        ([("License", "GPLv3")], False),
        ([("License", "BSD-3-Clause")], True),
        ([], False),
    ],
)
def test_a_licence_is_read_wherever_it_stands(fields: list[tuple[str, str]], fine: bool) -> None:
    assert allowed(licences(_Told(*fields))) is fine
