"""Lists the licence of everything that Ullage is installed with, and fails where one is the GPL's alone.

python tools/licences.py            a line each
python tools/licences.py --check    only what is not allowed, and 1 if there is any

Read from the metadata of what is installed, following the requirements in pyproject.toml, extras included.
What only tests and documentation need is not shipped and not listed. Of several licences one may choose.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
_COPYLEFT = re.compile(r"\bA?GPL|GNU (Affero )?General Public", re.I)
_LESSER = re.compile(r"\bLGPL|Lesser General Public|Library General Public", re.I)
_LONGEST = 90  # some put the licence's whole text into the field for its name


def declared() -> list[str]:
    """What pyproject.toml requires, with every extra."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    extras = [one for group in project["optional-dependencies"].values() for one in group]
    return [one for one in (*project["dependencies"], *extras) if not one.startswith(f"{project['name']}[")]


def closure(wanted_first: Iterable[str]) -> dict[str, Distribution]:
    """All that is installed of what these require, directly or not, by canonical name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(one) for one in wanted_first]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        try:
            one = found.get(name) or distribution(wanted.name)
        except PackageNotFoundError:
            continue
        found[name] = one
        for extra in {"", *wanted.extras} - {extra for other, extra in seen if other == name}:
            seen.add((name, extra))
            waiting += _required(one, extra)
    return found


def _required(one: Distribution, extra: str) -> Iterator[Requirement]:
    for text in one.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def licences(one: Distribution) -> list[str]:
    """What its metadata says, each licence that may be chosen by itself; empty if it says nothing."""
    meta = one.metadata
    for expression in meta.get_all("License-Expression") or ():
        return [part.strip(" ()") for part in re.split(r"\s+OR\s+", expression)]
    named = [line for line in meta.get_all("Classifier") or () if line.startswith("License ::")]
    stated = [line.rsplit(" :: ", 1)[-1] for line in named if line != "License :: OSI Approved"]
    if stated:
        return stated
    text = "".join(meta.get_all("License") or ()).strip()
    return [part.strip() for part in re.split(r"\s+or\s+", text.splitlines()[0])] if text else []


def allowed(choices: list[str]) -> bool:
    """Whether one of the licences is neither the GPL nor the AGPL, and there is one at all."""
    return any(not _COPYLEFT.search(_LESSER.sub("", one)) for one in choices)


def main(arguments: list[str]) -> int:
    refused = 0
    for name, one in sorted(closure(declared()).items()):
        choices = licences(one)
        fine = allowed(choices)
        refused += not fine
        if not fine or "--check" not in arguments:
            said = " or ".join(choice[:_LONGEST] for choice in choices) or "says nothing"
            sys.stdout.write(f"{name} {one.version}: {said}{'' if fine else '  NOT ALLOWED'}\n")
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
