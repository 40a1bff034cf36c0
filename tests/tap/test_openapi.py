"""The interface against its own document: whatever fits it, or does not, is answered as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.tap.scripted_upstream import ScriptedUpstream
from tests.tap.tap_process import TapProcess
from ullage.tap.clients.openapi import document, render

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats" / "tap-openapi.json"
SCHEMA = schemathesis.openapi.from_dict(document())


def test_the_document_is_the_published_one() -> None:
    assert DOCUMENT.read_text("utf-8") == render()


@SCHEMA.parametrize()
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
    ],
)
def test_whatever_fits_the_document(
    case: schemathesis.Case[Any], tap: TapProcess, upstream: ScriptedUpstream
) -> None:
    response = case.call(base_url=tap.url)
    case.validate_response(
        response,
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ],
    )
    assert b"Traceback" not in response.content


@pytest.mark.parametrize("stream", [False, True])
def test_every_error_is_in_the_document(tap: TapProcess, upstream: ScriptedUpstream, stream: bool) -> None:
    codes = document()["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"]
    response = httpx.post(f"{tap.url}/v1/completions", content=json.dumps({"prompt": 5, "stream": stream}))
    assert response.json()["error"]["code"] in codes
