"""The tap's interface as an OpenAPI 3.1 document, made of the schemas that requests are read with.

python -m ullage.tap.clients.openapi > docs/formats/tap-openapi.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ullage import __version__
from ullage.tap.clients.request import ChatBody, CompletionBody
from ullage.tap.failures import Failure

_ERROR_STATUSES = sorted({failure.status for failure in Failure})
_INTEGER = {"type": "integer", "minimum": 0}
_NUMBER_IN_TEXT = {"type": "string", "pattern": "^[0-9]+$"}

_EVENT = {  # with `stream: true`: `data` is JSON of a chunk, or [DONE]
    "type": "object",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
}


def document() -> dict[str, Any]:
    """The document. Everything that a response may hold is listed, and nothing else is allowed in it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ullage tap",
            "version": __version__,
            "description": "Trusted gateway before an AI server. See docs/tap.md.",
        },
        "paths": {
            "/v1/completions": {"post": _completion(CompletionBody, "text_completion", _text_choice())},
            "/v1/chat/completions": {"post": _completion(ChatBody, "chat.completion", _chat_choice())},
            "/v1/models": {"get": _get("The declared model.", _models())},
            "/health": {"get": _get("Whether anything is released.", _object({"status": {"const": "ok"}}))},
        },
        "components": {
            "schemas": {"Error": _error()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _completion(
    body: type[CompletionBody] | type[ChatBody], kind: str, choice: dict[str, Any]
) -> dict[str, Any]:
    record = _object(dict.fromkeys(("counter", "seed"), _NUMBER_IN_TEXT))
    answer = _object(
        {
            "id": {"type": "string"},
            "object": {"const": kind},
            "created": _INTEGER,
            "model": {"type": "string"},
            "choices": {"type": "array", "items": choice, "minItems": 1},
            "usage": _object(dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), _INTEGER)),
            "ullage": _object({"records": {"type": "array", "items": record}}),
        }
    )
    content = {
        "application/json": {"schema": answer},
        "text/event-stream": {"schema": _EVENT},
    }
    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _inline(schema, definitions)}},
        },
        "responses": {"200": {"description": "The answer.", "content": content}, **_errors()},
    }


def _get(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {"responses": {"200": {"description": description, "content": content}, **_errors()}}


def _errors() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        str(status): {
            "description": ", ".join(failure.code for failure in Failure if failure.status == status),
            "content": content,
        }
        for status in _ERROR_STATUSES
    }


def _error() -> dict[str, Any]:
    fields = {
        "message": {"type": "string"},
        "type": {"enum": sorted({failure.value.type for failure in Failure})},
        "param": {"type": ["string", "null"]},
        "code": {"enum": [failure.code for failure in Failure]},
    }
    return _object({"error": _object(fields)})


def _text_choice() -> dict[str, Any]:
    return _choice({"text": {"type": "string"}})


def _chat_choice() -> dict[str, Any]:
    return _choice({"message": _object({"role": {"const": "assistant"}, "content": {"type": "string"}})})


def _choice(content: dict[str, Any]) -> dict[str, Any]:
    return _object(
        {
            "index": _INTEGER,
            **content,
            "logprobs": {"type": "null"},
            "finish_reason": {"enum": ["stop", "length"]},
        }
    )


def _models() -> dict[str, Any]:
    text = {"type": "string"}
    declared = _object(dict.fromkeys(("model_digest", "profile", "dtype", "log_id"), text))
    model = _object(
        {"id": text, "object": {"const": "model"}, "created": _INTEGER, "owned_by": text, "ullage": declared}
    )
    return _object({"object": {"const": "list"}, "data": {"type": "array", "items": model}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _inline(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its references put in place, so that the document stands alone."""
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return _inline(definitions[reference.rpartition("/")[2]], definitions)
        return {key: _inline(value, definitions) for key, value in schema.items() if key != "title"}
    if isinstance(schema, list):
        return [_inline(item, definitions) for item in schema]
    return schema


def render() -> str:
    """The document as it is stored."""
    return json.dumps(document(), indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
