"""What a request may ask for. A field that the audit could not recompute is refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from ullage.errors import UsageError
from ullage.sampling.parameters import SamplingParameters
from ullage.server.api_error import ApiError

MAX_BODY_BYTES = 4 << 20
MAX_CHOICES = 64
MAX_STOPS = 16
MAX_LOGPROBS = 20

# Fields of OpenAI's and vLLM's interfaces that would change the answer in ways no sampler profile
# recomputes. Each may be sent with a value that changes nothing; null always may.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "allowed_token_ids": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "ignore_eos": (False,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "presence_penalty": (0,),
    "prompt_logprobs": (),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "stop_token_ids": ([],),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "use_beam_search": (False,),
}

_Schema = TypeVar("_Schema", bound=BaseModel)
_Stop = Annotated[StrictStr, Field(min_length=1, max_length=1000)]
_TokenIds = Annotated[list[StrictInt], Field(max_length=1 << 20)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StreamOptions(_Strict):
    """What a stream may carry beside its text."""

    include_usage: StrictBool = False


class _Common(_Strict):
    """Fields that both endpoints share; defaults are OpenAI's."""

    model: StrictStr | None = None
    seed: Annotated[StrictInt, Field(ge=0, lt=1 << 63)] | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: Annotated[StrictInt, Field(ge=-1)] = 0
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=MAX_STOPS)] = Field(default_factory=list)
    n: Annotated[StrictInt, Field(ge=1, le=MAX_CHOICES)] = 1
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    return_token_ids: StrictBool = False
    only_token_ids: StrictBool = False  # nothing but the ids of the answer: for a link that is metered
    stream_interval: Annotated[StrictInt, Field(ge=1, le=1 << 20)] = 1  # tokens an event of a stream

    @property
    def parameters(self) -> SamplingParameters:
        """Raises ApiError for values that no profile takes. top_k = -1 is vLLM's way to say "off"."""
        try:
            return SamplingParameters(self.temperature, self.top_p, max(self.top_k, 0))
        except UsageError as error:
            raise ApiError(str(error), param=str(error).partition(" ")[0]) from error

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(_Common):
    """POST /v1/completions."""

    prompt: StrictStr | _TokenIds | Annotated[list[StrictStr | _TokenIds], Field(max_length=MAX_CHOICES)]
    logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @property
    def output_limit(self) -> int | None:
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def top_logprobs_wanted(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and all(isinstance(item, int) for item in self.prompt):
            return [[item for item in self.prompt if isinstance(item, int)]]
        return [item for item in self.prompt if not isinstance(item, int)]


class _TextPart(_Strict):
    type: Literal["text"]
    text: StrictStr


class Message(_Strict):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: StrictStr | Annotated[list[_TextPart], Field(max_length=1000)]

    def plain(self) -> dict[str, str]:
        """Role and content as a chat template expects them; text parts joined by line ends."""
        content = self.content if isinstance(self.content, str) else "\n".join(p.text for p in self.content)
        return {"role": self.role, "content": content}


class ChatRequest(_Common):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    logprobs: StrictBool = False
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @property
    def output_limit(self) -> int | None:
        """None for as much as the context holds. Raises ApiError when both names disagree."""
        given = {value for value in (self.max_tokens, self.max_completion_tokens) if value is not None}
        if len(given) > 1:
            raise ApiError("max_tokens and max_completion_tokens disagree; give one.", param="max_tokens")
        return next(iter(given), None)

    @property
    def top_logprobs_wanted(self) -> int | None:
        """Raises ApiError when alternatives are asked for without log-probabilities."""
        if not self.logprobs:
            if self.top_logprobs is not None:
                raise ApiError("top_logprobs needs logprobs to be true.", param="top_logprobs")
            return None
        return self.top_logprobs or 0


def parse_completion(body: bytes) -> CompletionRequest:
    """Raises ApiError (400) naming the field at fault."""
    return _validate(CompletionRequest, _fields(body))


def parse_chat(body: bytes) -> ChatRequest:
    """Raises ApiError (400) naming the field at fault."""
    return _validate(ChatRequest, _fields(body))


def _fields(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError("The request's body is not JSON.") from error
    if not isinstance(data, dict):
        raise ApiError("The request's body is not a JSON object.")
    present = {name: value for name, value in data.items() if value is not None}
    for name in sorted(NEUTRAL.keys() & present.keys()):
        if not _is_neutral(present[name], NEUTRAL[name]):
            raise ApiError(
                f"'{name}' is not supported: the verifier could not recompute what it does to the answer. "
                "Leave it out.",
                param=name,
                code="unsupported_parameter",
            )
    return {name: value for name, value in present.items() if name not in NEUTRAL}


def _is_neutral(value: object, neutral: tuple[object, ...]) -> bool:
    # `False == 0` in Python: a boolean is only neutral where a boolean is expected.
    return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in neutral)


def _validate(schema: type[_Schema], fields: Mapping[str, Any]) -> _Schema:
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else None
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            message = f"'{name}' is not a field that this server knows, so it refuses to ignore it."
            raise ApiError(message, param=name, code="unknown_parameter") from error
        where = ".".join(str(part) for part in first["loc"])
        raise ApiError(f"{where}: {first['msg']}.", param=name) from error
