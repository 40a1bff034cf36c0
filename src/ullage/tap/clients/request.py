"""The strict request schema: what a client may ask, and the one canonical form of it.

A field is either understood, or without effect at the value it has, or the request is refused with the
field's name: nothing is dropped in silence. `docs/tap.md` lists the fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ullage.errors import UllageError
from ullage.tap.choices.tokens import Tokenizer
from ullage.tap.failures import Failure, RequestRefusedError

Endpoint = Literal["chat", "completions"]

DEFAULT_MAX_TOKENS = 256
MAX_CHOICES = 16
MAX_STOP_STRINGS = 16
MAX_MESSAGES = 4096
_NAMED_FIELDS = 20  # unsupported fields that one error names
_NAME_LENGTH = 64

# Values at which a field that cannot be recomputed has no effect, so that it may be present.
_WITHOUT_EFFECT: dict[str, tuple[object, ...]] = {
    "audio": (None,),
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "ignore_eos": (None, False),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "min_p": (None, 0),
    "min_tokens": (None, 0),
    "modalities": (None, ["text"]),
    "parallel_tool_calls": (None,),
    "prediction": (None,),
    "presence_penalty": (None, 0),
    "prompt_logprobs": (None,),
    "reasoning_effort": (None,),
    "repetition_penalty": (None, 1),
    "response_format": (None, {"type": "text"}),
    "return_token_ids": (None, False),
    "stop_token_ids": (None, []),
    "suffix": (None,),
    "tool_choice": (None, "none"),
    "tools": (None, []),
    "top_logprobs": (None,),
}

_StopString = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _StreamOptions(_Strict):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class _Common(_Strict):
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: _Seed | None = None
    stop: _StopString | Annotated[list[_StopString], Field(max_length=MAX_STOP_STRINGS)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class CompletionBody(_Common):
    """What /v1/completions takes."""

    prompt: str | list[int]


class _Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str


class ChatBody(_Common):
    """What /v1/chat/completions takes."""

    messages: Annotated[list[_Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


_Body = TypeVar("_Body", bound=_Common)


@dataclass(frozen=True)
class CompletionRequest:
    """A request as the tap understood it: everything that the answer may depend on.

    `temperature` and `top_p` are exact decimal strings; `top_k` 0 is off. `prompt_ids` are the tap's own.
    """

    endpoint: Endpoint
    prompt_ids: tuple[int, ...]
    temperature: str
    top_p: str
    top_k: int
    max_tokens: int
    stop: tuple[str, ...]
    choices: int
    stream: bool
    include_usage: bool
    client_seed: int | None

    def parameters(self) -> dict[str, Any]:
        """The sampling parameters as a record holds them."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_tokens": self.max_tokens,
            "stop": self.stop,
        }

    def digest(self) -> bytes:
        """SHA-256 over the canonical request, which can be made again from the records (docs/tap.md)."""
        return hashlib.sha256(self.canonical()).digest()

    def canonical(self) -> bytes:
        """The canonical request, in RFC 8785.

        For lists, texts, integers below 2^53 and null, and ASCII keys in order, pydantic's encoder writes
        what the RFC says, fifty times as fast as the `rfc8785` package; a test compares the two.
        """
        return pydantic_core.to_json(
            {
                "client_seed": None if self.client_seed is None else str(self.client_seed),
                "endpoint": self.endpoint,
                "n": self.choices,
                "parameters": {
                    "max_tokens": self.max_tokens,
                    "stop": self.stop,
                    "temperature": self.temperature,
                    "top_k": self.top_k,
                    "top_p": self.top_p,
                },
                "prompt_ids": self.prompt_ids,
                "stream": self.stream,
                "version": 1,
            }
        )


def parse_request(
    endpoint: Endpoint, body: bytes, model_name: str, tokenizer: Tokenizer
) -> CompletionRequest:
    """Read a request body. Raises RequestRefusedError with the fields that are wrong."""
    fields = _object(body)
    _refuse_unsupported(endpoint, fields)
    if endpoint == "chat":
        chat = _validated(ChatBody, fields)
        asked = _one_limit(chat)
        _check_model(chat, model_name)
        messages = [{"role": message.role, "content": message.content} for message in chat.messages]
        prompt_ids = _tokenised("messages", lambda: tokenizer.render_chat(messages))
        return _resolve(endpoint, chat, prompt_ids, asked, tokenizer)
    completion = _validated(CompletionBody, fields)
    _check_model(completion, model_name)
    prompt = completion.prompt
    prompt_ids = _tokenised("prompt", lambda: tokenizer.encode(prompt)) if isinstance(prompt, str) else prompt
    return _resolve(endpoint, completion, prompt_ids, completion.max_tokens, tokenizer)


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RequestRefusedError(Failure.INVALID_REQUEST, "The body is not valid JSON in UTF-8.") from error
    if not isinstance(data, dict):
        raise RequestRefusedError(Failure.INVALID_REQUEST, "The body must be a JSON object.")
    return data


def _refuse_unsupported(endpoint: Endpoint, fields: dict[str, Any]) -> None:
    """Take fields without effect out of `fields`; refuse, naming them, those that have one."""
    known = (ChatBody if endpoint == "chat" else CompletionBody).model_fields
    unsupported = []
    for name in [name for name in fields if name not in known]:
        value = fields.pop(name)
        harmless = _WITHOUT_EFFECT.get(name, ())
        if not any(_same(value, allowed) for allowed in harmless):
            unsupported.append(name)
    if unsupported:
        named = ", ".join(repr(name[:_NAME_LENGTH]) for name in sorted(unsupported)[:_NAMED_FIELDS])
        raise RequestRefusedError(
            Failure.UNSUPPORTED_FIELD,
            f"An answer to this request could not be recomputed, or the field is unknown: {named}. "
            "Leave these fields out.",
            min(unsupported)[:_NAME_LENGTH],
        )


def _same(value: object, allowed: object) -> bool:
    """Equality that tells 0 from false, as JSON does, and not 0 from 0.0."""
    return isinstance(value, bool) == isinstance(allowed, bool) and value == allowed


def _validated(schema: type[_Body], fields: dict[str, Any]) -> _Body:
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else None
        if name == "prompt":
            message = (
                "'prompt' must be one string or one list of token ids; send a list of prompts one by one."
            )
        elif name == "messages" and first["type"] != "missing":
            message = (
                "'messages' must be a list of objects with 'role' (system, user or assistant) and 'content' "
                "(a string), and nothing else."
            )
        else:
            message = f"'{name}': {first['msg']}."
        raise RequestRefusedError(Failure.INVALID_REQUEST, message, name) from error


def _check_model(body: _Common, model_name: str) -> None:
    if body.model is not None and body.model != model_name:
        raise RequestRefusedError(
            Failure.MODEL_NOT_FOUND, f"This tap serves one model, '{model_name}'.", "model"
        )


def _one_limit(chat: ChatBody) -> int | None:
    newer, older = chat.max_completion_tokens, chat.max_tokens
    if newer is not None and older is not None and newer != older:
        raise RequestRefusedError(
            Failure.INVALID_REQUEST,
            "'max_completion_tokens' and 'max_tokens' differ; give one.",
            "max_tokens",
        )
    return older if newer is None else newer


def _tokenised(field: str, tokenise: Callable[[], list[int]]) -> list[int]:
    try:
        return tokenise()
    except UllageError as error:
        raise RequestRefusedError(Failure.INVALID_REQUEST, str(error), field) from error


def _resolve(
    endpoint: Endpoint, body: _Common, prompt_ids: Sequence[int], asked: int | None, tokenizer: Tokenizer
) -> CompletionRequest:
    """Defaults filled in, and the limits that need the tokenizer checked."""
    field = "messages" if endpoint == "chat" else "prompt"
    room = tokenizer.context_length - len(prompt_ids)
    if not prompt_ids:
        raise RequestRefusedError(Failure.INVALID_REQUEST, "The prompt has no tokens.", field)
    if min(prompt_ids) < 0 or max(prompt_ids) >= tokenizer.vocabulary_size:
        raise RequestRefusedError(
            Failure.INVALID_REQUEST, f"Token ids must be in 0 … {tokenizer.vocabulary_size - 1}.", field
        )
    if room < max(asked or 1, 1):
        raise RequestRefusedError(
            Failure.CONTEXT_LENGTH_EXCEEDED,
            f"The context has {tokenizer.context_length} tokens; the prompt has {len(prompt_ids)} and "
            f"{asked or 1} are asked for. Shorten the prompt or lower 'max_tokens'.",
            field if room < 1 else "max_tokens",
        )
    temperature = 1.0 if body.temperature is None else body.temperature
    if 0 < temperature < 0.01:
        raise RequestRefusedError(
            Failure.INVALID_REQUEST,
            "'temperature' must be 0 or at least 0.01: servers round what is between.",
            "temperature",
        )
    options = body.stream_options
    if options is not None and not body.stream:
        raise RequestRefusedError(
            Failure.INVALID_REQUEST, "'stream_options' is for streams only.", "stream_options"
        )
    top_k = body.top_k or 0
    return CompletionRequest(
        endpoint=endpoint,
        prompt_ids=tuple(prompt_ids),
        temperature=_decimal(temperature),
        top_p=_decimal(1.0 if body.top_p is None else body.top_p),
        top_k=0 if top_k in (-1, 0) or top_k >= tokenizer.vocabulary_size else top_k,
        max_tokens=min(DEFAULT_MAX_TOKENS, room) if asked is None else asked,
        stop=_stop_strings(body.stop),
        choices=body.n or 1,
        stream=bool(body.stream),
        include_usage=options is not None and bool(options.include_usage),
        client_seed=body.seed,
    )


def _stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(dict.fromkeys(stop))


def _decimal(value: float) -> str:
    """The shortest decimal that reads back as the same double, as records spell it."""
    return repr(float(value))


def upstream_body(
    request: CompletionRequest,
    seed: int,
    model_name: str | None,
    *,
    stream: bool | None = None,
    interval: int = 0,
    compact: bool = False,
    logprobs: bool = False,
) -> bytes:
    """What the tap asks the upstream for one choice: token ids in, token ids out, the tap's seed.

    Without a name for the model the field is left out, and a server of one model takes its own. `stream`
    says whether the server streams (default: as the client asked), `interval` in how many tokens a piece,
    `compact` that ids alone are wanted; servers that know neither field ignore them. `logprobs` asks for the
    log-probability of each token, beside which some servers name its id.
    """
    body: dict[str, object] = {} if model_name is None else {"model": model_name}
    body |= {
        "prompt": list(request.prompt_ids),
        "max_tokens": request.max_tokens,
        "temperature": float(request.temperature),
        "top_p": float(request.top_p),
    }
    if request.top_k:
        body["top_k"] = request.top_k
    if request.stop:
        body["stop"] = list(request.stop)
    streams = request.stream if stream is None else stream
    body |= {"n": 1, "seed": seed, "stream": streams, "return_token_ids": True}
    if streams and interval:
        body["stream_interval"] = interval
    if compact:
        body["only_token_ids"] = True
    if logprobs:
        body["logprobs"] = 1
    return pydantic_core.to_json(body)
