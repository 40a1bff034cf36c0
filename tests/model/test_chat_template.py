"""A model's chat template is a stranger's program: whatever it ends in, the caller sees one error."""

from __future__ import annotations

import pytest

from ullage.errors import UsageError
from ullage.model.chat_template import ChatTemplate

UNCOMPILABLE = {
    "deep parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep loops": "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "a number of many digits": "{{ 1" + "0" * 5000 + " }}",
    "half a tag": "{% for %}",
}
REFUSING = {
    "endless recursion": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "more memory than there is": "{{ 'a' * 2**62 }}",
    "a filter on what it is not for": "{{ 5 | wordwrap }}",
    "an error of no usual kind": "{{ cycler() }}",
    "a refusal": "{{ raise_exception('no such role') }}",
}


@pytest.mark.parametrize("kind", UNCOMPILABLE)
def test_a_template_that_cannot_be_compiled_is_one_error(kind: str) -> None:
    with pytest.raises(UsageError, match=r"template cannot be compiled: \S"):
        ChatTemplate(UNCOMPILABLE[kind], {})


@pytest.mark.parametrize("kind", REFUSING)
def test_a_template_that_fails_is_one_error(kind: str) -> None:
    template = ChatTemplate(REFUSING[kind], {})
    with pytest.raises(UsageError, match=r"template refuses these messages: \S"):
        template.render([{"role": "user", "content": "Hello"}])
