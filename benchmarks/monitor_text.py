"""Honest text for the monitor, in messages, split by source: what is fitted on is never judged on.

fitting      source: the Python standard library, torch, transformers, sympy, scipy, matplotlib, Perl's own
             modules, Go's sources; prose: `copyright`, README and NEWS files of /usr/share/doc, manual
             pages 1 and 3, the public-domain English that the built-in model was trained on, where given;
             outputs of the built-in model under seed 2
development  checkouts of redis/redis, expressjs/express, psf/requests, golang/crypto, rust-lang/book
test         checkouts of rust-lang/rfcs, libuv/libuv, BurntSushi/ripgrep, etcd-io/etcd, sveltejs/svelte,
             sphinx-doc/sphinx, jqlang/jq; outputs under seed 4 (`checkouts`; the commits are in
             docs/results/monitor.md). The test before had curl/curl, python/peps, tokio-rs/tokio, vuejs/core,
             rust-lang/reference
evaluation   an earlier test, looked at since: all other packages of this environment, the headers of
             /usr/include; manual pages 5, 7 and 8, change logs and other documents of /usr/share/doc; outputs
             under seed 3

The table of byte pairs was counted in the standard library, Perl's modules and the files of /usr/share/doc
alone. A message is 200 to 2,000 bytes of whole lines. A message that holds a token with the shape of a
digest, a key or base64 data is *shaped*: reported apart. That rule is a regular expression of its own and
knows nothing of the monitor's tables.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

MACRO = re.compile(r"^[.'].{0,3}|\\f[A-Z]|\\[-&]|\\\(..", re.MULTILINE)
_SHAPED = re.compile(
    r"[0-9a-fA-F]{24,}"  # digests
    r"|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-"  # UUIDs
    r"|(?=[A-Za-z0-9+/_=-]*[0-9])(?=[A-Za-z0-9+/_=-]*[a-z])(?=[A-Za-z0-9+/_=-]*[A-Z])[A-Za-z0-9+/=]{32,}"
    r"|base64,|-----BEGIN|sha(?:256|384|512)[-:]"
    r"|(?:\\x[0-9a-fA-F]{2}){8}|(?:%[0-9A-Fa-f]{2}){8}|(?:0x[0-9a-fA-F]{2},? ?){8}|(?:[0-9]{1,3}, ?){16}"
    r"|(?:\\u[0-9a-fA-F]{4}){6}|(?:\\[0-7]{3}){8}|(?:[0-9a-fA-F]{2}[ :]){12}"
)


# What the rule above does not know and the monitor's false alarms showed to be drawn or encoded as well:
# constants of 64 bits, words in hexadecimal, identifiers in URL-safe base64.
_SHAPED_TOO = re.compile(
    r"(?=[0-9a-fA-F]*[0-9])(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{16,}"
    r"|(?:[0-9a-fA-F]{2}[ :]){8}|(?:0x[0-9a-fA-F]{2},?\s*){8}"
)
_TOKEN = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
_CHANGE = re.compile(r"(?<=[0-9])(?=[A-Za-z])|(?<=[A-Za-z])(?=[0-9])")
_FITTED_PACKAGES = frozenset({"torch", "transformers", "sympy", "scipy", "matplotlib"})


def is_shaped(message: str, *, widely: bool = False) -> bool:
    """Whether an honest message has something with the shape of encoded data.

    `widely` also by the second rule, which was written after alarms on other text had been looked at.
    """
    if _SHAPED.search(message) is not None:
        return True
    return widely and (_SHAPED_TOO.search(message) is not None or _has_identifier(message))


def _has_identifier(message: str) -> bool:
    """Whether a token of 20 or more has both cases and turns from letters to digits four times or more."""
    return any(
        one.lower() != one and one.upper() != one and len(_CHANGE.findall(one)) >= 4
        for one in _TOKEN.findall(message)
    )


def messages_of(text: str, draw: random.Random) -> Iterator[str]:
    """Cut a text at line ends into messages of 200 to 2,000 bytes, sizes drawn log-uniformly."""
    piece: list[str] = []
    size, goal = 0, int(200 * 10 ** draw.random())
    for line in text.splitlines(keepends=True):
        piece.append(line[:2000])
        size += len(piece[-1])
        if size >= goal:
            yield "".join(piece)
            piece, size, goal = [], 0, int(200 * 10 ** draw.random())


def read(path: Path) -> str:
    """A file's text, gunzipped; what is not UTF-8 is left out."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except OSError:
        return ""
    return data[:400_000].decode("utf-8", "ignore")


def sample(paths: Iterable[Path], count: int, seed: int, *, manual: bool = False, skip: int = 0) -> list[str]:
    """`count` messages from files in random order, at most 12 a file, after the files of the first `skip`."""
    draw = random.Random(seed)
    files = sorted(paths)
    draw.shuffle(files)
    found: list[str] = []
    for path in files:
        text = read(path)
        if manual:
            text = MACRO.sub("", text)
        pieces = list(messages_of(text, draw))
        draw.shuffle(pieces)
        if skip > 0:
            skip -= len(pieces[:12])
            continue
        found += pieces[:12]
        if len(found) >= count:
            break
    return found[:count]


def outputs(path: Path) -> list[str]:
    """Outputs that `benchmarks/monitor_outputs.py` wrote."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def table_text(count: int = 20_000) -> dict[str, list[str]]:
    """Messages that the table of byte pairs is counted in."""
    library = Path(sysconfig.get_paths()["stdlib"])
    # Its tests hold data in base64 and base85, which no rule of shape catches.
    modules = (path for path in library.rglob("*.py") if not {"site-packages", "test"} & set(path.parts))
    documents = [*Path("/usr/share/doc").glob("*/copyright"), *Path("/usr/share/doc").glob("*/README*")]
    documents += Path("/usr/share/doc").glob("*/NEWS*")
    perl = list(Path("/usr/share/perl").rglob("*.pod")) + list(Path("/usr/share/perl").rglob("*.pm"))
    return {
        "source": sample(modules, count, 1) + sample(perl, count // 4, 2),
        "prose": sample(documents, count, 3),
    }


def fitting(outputs_path: Path | None, english: Path | None, count: int = 12_000) -> dict[str, list[str]]:
    """Messages for the thresholds, by kind."""
    groups = table_text(count)
    packages = Path(sysconfig.get_paths()["purelib"])
    modules = [path for name in _FITTED_PACKAGES for path in (packages / name).rglob("*.py")]
    go = list(Path("/usr/share").glob("go-*/src/**/*.go"))
    manual = [*Path("/usr/share/man/man1").glob("*.gz"), *Path("/usr/share/man/man3").glob("*.gz")]
    groups["source"] += sample(modules, count // 2, 4) + sample(go, count // 2, 5)
    groups["prose"] += sample(manual, count // 2, 6, manual=True)
    if english is not None:
        pieces = list(messages_of(gzip.decompress(english.read_bytes()).decode(), random.Random(7)))
        random.Random(7).shuffle(pieces)
        groups["prose"] += pieces[: count // 4]
    groups["model"] = outputs(outputs_path) if outputs_path else []
    return groups


_SOURCE_ENDINGS = ("c", "h", "go", "js", "py", "rs", "ts")
_PROSE_ENDINGS = ("adoc", "md", "rst", "txt")


def checkouts(folder: Path, outputs_path: Path | None, count: int = 6_000) -> dict[str, list[str]]:
    """Messages of the files of repositories that were checked out under a folder, and outputs, by kind."""
    return {
        kind: sample([path for one in endings for path in folder.rglob(f"*.{one}")], count, seed)
        for kind, endings, seed in (("source", _SOURCE_ENDINGS, 21), ("prose", _PROSE_ENDINGS, 22))
    } | {"model": outputs(outputs_path) if outputs_path else []}


def evaluation(outputs_path: Path, count: int = 4_800, skip: int = 9_600) -> dict[str, list[str]]:
    """Messages to judge on, by kind.

    The files of the first 9,600 messages of each source were looked at while the monitor was made, so they
    are left out here.
    """
    packages = Path(sysconfig.get_paths()["purelib"])
    modules = [
        path for path in packages.rglob("*.py") if path.relative_to(packages).parts[0] not in _FITTED_PACKAGES
    ]
    headers = list(Path("/usr/include").rglob("*.h"))
    manual = [path for section in "578" for path in Path(f"/usr/share/man/man{section}").glob("*.gz")]
    changes = list(Path("/usr/share/doc").glob("*/changelog*.gz"))
    documents = [
        path
        for ending in ("txt", "md", "rst", "html")
        for path in Path("/usr/share/doc").rglob(f"*.{ending}")
        if not path.name.startswith(("README", "NEWS", "copyright"))
    ]
    return {
        "source": sample(modules, count, 8, skip=skip) + sample(headers, count // 4, 9, skip=skip),
        "prose": sample(manual, count // 2, 10, manual=True, skip=skip)
        + sample(changes, count // 2, 11, skip=skip)
        + sample(documents, count, 12),
        "model": outputs(outputs_path),
    }
