"""Chat templates, rendered as transformers renders them, without transformers or torch.

A template is untrusted text, so it runs in Jinja's immutable sandbox and sees plain strings only.
The environment is that of `transformers.utils.chat_template_utils.render_jinja_template`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from ullage.errors import UsageError

_MAX_TEXT = 4 << 20


class ChatTemplate:
    """A compiled template with the special tokens that it may name (`bos_token`, `eos_token`, …)."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except Exception as error:  # see `_reason`
            raise UsageError(f"The model's chat template cannot be compiled: {_reason(error)}.") from error
        self._special_tokens = dict(special_tokens)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt's text, ready for the assistant's turn. Raises UsageError when the template refuses."""
        chat = [{str(key): str(value) for key, value in message.items()} for message in messages]
        try:
            text = self._template.render(
                messages=chat, tools=None, documents=None, add_generation_prompt=True, **self._special_tokens
            )
        except Exception as error:  # see `_reason`
            raise UsageError(f"The model's chat template refuses these messages: {_reason(error)}") from error
        if len(text) > _MAX_TEXT:
            raise UsageError(f"The rendered chat has more than {_MAX_TEXT} characters.")
        return text


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's text for training; here it is a no-op."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own interface

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def _reason(error: Exception) -> str:
    """What a template failed of. It is a stranger's program, so that may be anything.

    Parentheses nested too deep end in RecursionError, loops nested too deep in SyntaxError, a word repeated
    2^62 times in MemoryError, a filter on what it is not for in AttributeError; some have no message.
    """
    return str(error) or type(error).__name__


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which would change the prompt.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(pattern: str) -> str:
    # Local time, as in transformers. What was rendered stands in the record as token ids.
    return datetime.now().strftime(pattern)
