"""Our tokenizer is the model's tokenizer as transformers reads it, without transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from tests.model.tiny_model import CONTEXT, VOCABULARY, edit_json, write_tiny_model
from ullage.errors import UsageError
from ullage.model.stream_decoder import StreamDecoder
from ullage.model.tokenizer import ModelTokenizer

TEXTS = [
    "",
    " ",
    "The cat sat.",
    "  def f(x):\n\treturn x",
    "naïve 東京 🙂",
    "<|user|>hi<|end|> there",
    "\x00\x7f",
]
CHATS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": 'Be <brief> & "kind".'}, {"role": "user", "content": " 東京? \n"}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "{{ messages }}"},
    ],
]


@pytest.fixture(scope="module")
def ours(folder: Path) -> ModelTokenizer:
    return ModelTokenizer.load(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_encodes_and_decodes_as_transformers(ours: ModelTokenizer, theirs: Any, text: str) -> None:
    ids = ours.encode(text)
    assert ids == theirs(text).input_ids
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("chat", CHATS)
def test_renders_chats_as_transformers(ours: ModelTokenizer, theirs: Any, chat: list[dict[str, str]]) -> None:
    expected = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ours.render_chat(chat) == expected


def test_facts_of_the_model(ours: ModelTokenizer) -> None:
    assert (ours.vocabulary_size, ours.context_length) == (VOCABULARY, CONTEXT)
    assert ours.eos_ids == {0}


@pytest.mark.parametrize(
    "template",
    [
        "{{ bos_token }}{% for m in messages %}{{ m.content | tojson }}{% endfor %}",
        "{{ bos_token }}{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}{% set ns = namespace(a=1) %}{{ ns.a }}",
        "{% if tools is none %}none{% endif %}{{ undefined_thing }}{{ messages | tojson(indent=2) }}",
    ],
)
def test_template_features_as_transformers(tmp_path: Path, folder: Path, template: str) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    edit_json(tmp_path / "tokenizer_config.json", chat_template=template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "user", "content": "<é>"}, {"role": "assistant", "content": "b"}]
    expected = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ModelTokenizer.load(tmp_path).render_chat(chat) == expected


def test_a_beginning_token_is_not_added_twice(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    write_tiny_model(tmp_path, chat_template="{{ bos_token }}{{ messages[0].content }}")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = ModelTokenizer.load(tmp_path)
    assert ours.encode("cat")[0] == 0
    assert ours.render_chat([{"role": "user", "content": "cat"}]) == ours.encode("cat")


def test_the_template_file_goes_before_the_configuration(tmp_path: Path, folder: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    edit_json(tmp_path / "tokenizer_config.json", chat_template="one")
    assert ModelTokenizer.load(tmp_path).decode(ModelTokenizer.load(tmp_path).render_chat([])) == "one"
    (tmp_path / "chat_template.jinja").write_text("two")
    assert ModelTokenizer.load(tmp_path).decode(ModelTokenizer.load(tmp_path).render_chat([])) == "two"


def test_a_template_that_refuses_or_reaches_out_is_an_error(
    tmp_path: Path, folder: Path, ours: ModelTokenizer
) -> None:
    with pytest.raises(UsageError, match="unknown role"):
        ours.render_chat([{"role": "robot", "content": "x"}])
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UsageError, match="no chat template"):
        ModelTokenizer.load(tmp_path).render_chat([{"role": "user", "content": "x"}])
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(UsageError):
        ModelTokenizer.load(tmp_path).render_chat([{"role": "user", "content": "x"}])
    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(UsageError, match="compiled"):
        ModelTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [5, 6]}, {"eos_token_id": 3}, {5, 6}),
        ({}, {"eos_token_id": 3}, {3}),
        ({}, {"eos_token_id": None}, set()),
    ],
)
def test_end_tokens(
    tmp_path: Path, folder: Path, generation: dict[str, object], config: dict[str, object], expected: set[int]
) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    (tmp_path / "config.json").write_text(
        json.dumps({"vocab_size": 9, "max_position_embeddings": 9} | config)
    )
    assert ModelTokenizer.load(tmp_path).eos_ids == expected


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff\xfe", b'{"vocab_size": 0, "max_position_embeddings": 5}']
)
def test_bad_configuration_is_one_error(tmp_path: Path, folder: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UsageError):
        ModelTokenizer.load(tmp_path)


def test_bad_tokenizer_is_one_error(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(UsageError, match="missing"):
        ModelTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="not a tokenizer"):
        ModelTokenizer.load(tmp_path)


def test_half_a_surrogate_pair_is_refused(ours: ModelTokenizer) -> None:
    with pytest.raises(UsageError, match="surrogate"):
        ours.encode("a\ud800")


@given(ids=st.lists(st.integers(0, VOCABULARY - 1), max_size=60))
def test_deltas_join_to_the_decoded_text(ours: ModelTokenizer, ids: list[int]) -> None:
    decoder = ours.stream_decoder()
    deltas = [decoder.push(token) for token in ids]
    deltas.append(decoder.finish())
    assert "".join(deltas) == ours.decode(ids) == decoder.text


@given(text=st.text(max_size=40))
def test_no_delta_holds_half_a_character(ours: ModelTokenizer, text: str) -> None:
    decoder = ours.stream_decoder()
    ids = ours.encode(text)
    released = ""
    for token in ids:
        released += decoder.push(token)
        assert ours.decode(ids).startswith(released)
    assert released + decoder.finish() == ours.decode(ids)


def test_a_character_over_several_tokens_comes_whole(ours: ModelTokenizer) -> None:
    spelled = [ours.encode(chr(0x1F600))[:], ours.encode("a")]
    ids = [token for part in spelled for token in part]
    assert len(ids) > 3, "the smiley must be spread over tokens for this test to say anything"
    decoder = ours.stream_decoder()
    assert [decoder.push(token) for token in ids] == ["", "", "", chr(0x1F600), "a"][-len(ids) :]


class _Counting:
    """The bytes of UTF-8 as tokens, and how many were decoded."""

    def __init__(self) -> None:
        self.decoded = 0

    def token(self, token_id: int) -> str:
        return chr(token_id)

    def decode(self, ids: Sequence[int]) -> str:
        self.decoded += len(ids)
        return bytes(ids).decode("utf-8", "replace")


@given(st.lists(st.sampled_from((0x61, 0x80, 0xAC, 0xC3, 0xE2, 0xF0, 0x9F, 0x82)), max_size=400))
def test_bytes_in_any_order_join_to_the_decoded_text(ids: list[int]) -> None:
    tokenizer = _Counting()
    decoder = StreamDecoder(tokenizer)
    deltas = [decoder.push(token) for token in ids]
    assert "".join([*deltas, decoder.finish()]) == bytes(ids).decode("utf-8", "replace")


@pytest.mark.parametrize("ids", [[0xE2] * 4000, [0xF0, 0x9F] * 2000, [0x61] + [0x80] * 4000])
def test_characters_that_never_become_whole_are_not_decoded_for_each_further_token(ids: list[int]) -> None:
    tokenizer = _Counting()
    decoder = StreamDecoder(tokenizer)
    text = "".join([*map(decoder.push, ids), decoder.finish()])
    assert text == bytes(ids).decode("utf-8", "replace")
    assert tokenizer.decoded < 300 * len(ids)  # it was 2,000 a token, and more for more


class _ByteFallback:
    """A sentencepiece-like decoder: a run of byte tokens is text only if all of it is UTF-8."""

    def token(self, token_id: int) -> str:
        return f"<0x{token_id:02X}>" if token_id < 256 else chr(token_id)

    def decode(self, ids: list[int]) -> str:
        text, run = "", b""
        for token_id in [*ids, -1]:
            if 0 <= token_id < 256:
                run += bytes([token_id])
                continue
            try:
                text += run.decode()
            except UnicodeDecodeError:
                text += "\N{REPLACEMENT CHARACTER}" * len(run)
            run = b""
            text += chr(token_id) if token_id >= 0 else ""
        return text


@given(
    ids=st.lists(
        st.one_of(st.sampled_from([*"é€".encode(), 0xFF, 0x41]), st.integers(0x3041, 0x3043)), max_size=30
    )
)
def test_byte_fallback_is_never_taken_back(ids: list[int]) -> None:
    tokenizer: Any = _ByteFallback()
    decoder = StreamDecoder(tokenizer)
    deltas = [decoder.push(token) for token in ids]
    assert "".join([*deltas, decoder.finish()]) == tokenizer.decode(ids)


def test_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ullage.model.tokenizer import ModelTokenizer;"
        "from ullage.model.identity import identify; f = Path(sys.argv[1]);"
        "ModelTokenizer.load(f).encode('a'); identify(f);"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
