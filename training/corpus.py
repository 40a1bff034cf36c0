"""The training text of the built-in model: public-domain English and Python's own sources.

Three kinds of document come out of two kinds of source:

* plain documents: every part of an English text file between `<|document|>` lines, and every
  module of the Python standard library;
* dialogues: consecutive speeches of a play, as turns of a conversation;
* questions: "What does os.path.join do?", answered by the function's own docstring.

The last two teach the model its chat template and when to stop. A document derived from a
source always lands on the same side of the training/held-out split as the source itself.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCUMENT_LINE = "<|document|>"
END, USER, ASSISTANT, SYSTEM = "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL_TOKENS = (END, USER, ASSISTANT, SYSTEM)

_SKIPPED_PACKAGES = {"test", "tests", "idlelib", "site-packages", "lib2to3", "__pycache__"}
_SPEECH = re.compile(r"^([A-Z][A-Z' ]{1,30}):\n((?:.+\n)+)", re.MULTILINE)
_HELD_OUT_SHARE = 0.04


@dataclass(frozen=True)
class Document:
    """One text of the corpus; `held_out` ones are never trained on."""

    source: str
    text: str
    held_out: bool


def is_held_out(source_text: str) -> bool:
    """A split that depends on the text alone, so that it is the same on every machine."""
    digest = hashlib.sha256(source_text.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < _HELD_OUT_SHARE


def english_documents(path: Path) -> Iterator[Document]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for part in raw.decode("utf-8").split(DOCUMENT_LINE):
        text = part.strip()
        if not text:
            continue
        held_out = is_held_out(text)
        yield Document("english", text, held_out)
        for dialogue in _dialogues(text):
            yield Document("dialogue", dialogue, held_out)


def standard_library_documents() -> Iterator[Document]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if _SKIPPED_PACKAGES & set(path.relative_to(root).parts):
            continue
        try:
            text = path.read_text("utf-8").strip()
        except UnicodeDecodeError:
            continue
        if not text:
            continue
        held_out = is_held_out(text)
        yield Document("python", text, held_out)
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for question in _questions(module.removesuffix(".__init__"), text):
            yield Document("question", question, held_out)


def _dialogues(text: str) -> Iterator[str]:
    speeches = [match.group(2).strip() for match in _SPEECH.finditer(text)]
    turns = 6
    for start in range(0, len(speeches) - 1, turns):
        window = speeches[start : start + turns]
        roles = (USER, ASSISTANT)
        yield "".join(
            roles[index % 2] + speech + (END if index % 2 else "")
            for index, speech in enumerate(window[: len(window) // 2 * 2])
        )


def _questions(module: str, source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        documentation = ast.get_docstring(node)
        if node.name.startswith("_") or not documentation or len(documentation) < 20:
            continue
        answer = documentation.split("\n\n")[0]
        yield f"{USER}What does {module}.{node.name} do?{ASSISTANT}{answer}{END}"
