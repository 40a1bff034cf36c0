"""Writes docs/reference/cli.md from the parsers: every command with its arguments and options.

python tools/cli_reference.py            write the page
python tools/cli_reference.py --check    end with 1 if the page is not what the parsers say
"""

from __future__ import annotations

import sys
from pathlib import Path

from ullage.cli.parsers import Described, Parameter, describe, every_command

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
_HEAD = """\
# Command line

Written by `python tools/cli_reference.py` from the parsers; a test holds it to them. `ullage COMMAND --help`
says the same.

Every command ends with 0 (pass), 1 (fail), 2 (usage), 3 (cannot tell) or 4 (fault). `--json` prints one JSON
document on standard output and nothing else there. Progress goes to standard error: a bar where that is a
terminal, lines of the red team anywhere, nothing with `--quiet`.
"""


def main() -> int:
    """Write or check the page."""
    made = page()
    if "--check" in sys.argv[1:]:
        if PAGE.exists() and PAGE.read_text("utf-8") == made:
            return 0
        sys.stderr.write("docs/reference/cli.md is not current: run python tools/cli_reference.py\n")
        return 1
    PAGE.write_text(made, "utf-8")
    return 0


def page() -> str:
    """The page's text."""
    return "\n".join([_HEAD, *(_section(describe(words, command)) for words, command in every_command())])


def _section(command: Described) -> str:
    lines = [f"## {command.words}", "", command.summary, "", f"    {command.usage}", ""]
    if command.text:
        lines += [command.text, ""]
    if command.parameters:
        lines += ["| | | |", "|---|---|---|"]
        lines += [_row(one) for one in command.parameters]
        lines.append("")
    return "\n".join(lines)


def _row(one: Parameter) -> str:
    name = f"`{', '.join(one.flags)}`" if one.flags else f"`{one.name.upper()}`"
    kind = f"{one.kind}, again for more" if one.repeated and one.flags else one.kind
    notes = [one.help]
    if one.required:
        notes.append("Needed.")
    elif one.default:
        notes.append(f"Default: `{one.default}`.")
    return f"| {name} | {_cell(kind)} | {_cell(' '.join(filter(None, notes)))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
