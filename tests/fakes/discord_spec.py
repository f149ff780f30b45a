"""Discord's own OpenAPI description as a judge of every request that the bot makes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

SPEC = Path(__file__).parents[3] / "shared" / "specs" / "discord-http-api-v10.openapi.json"
_URI = "urn:discord"


def is_here() -> bool:
    return SPEC.is_file()


def violations(method: str, path: str, body: Any) -> Iterator[str]:
    """What is wrong with a request, by the description; nothing where it is as it should be."""
    found = _operation(method.lower(), path)
    if found is None:
        yield f"{method} {path}: no such operation"
        return
    template, operation = found
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is None:
        if operation.get("requestBody", {}).get("required") and content:
            yield f"{method} {template}: lacks a body"
        return
    if content is None:
        yield f"{method} {template}: takes no body, got {body}"
        return
    for error in _validator(method.lower(), template).iter_errors(_normalised(body)):
        yield f"{method} {template}: {error.json_path}: {error.message[:300]}"


def _normalised(body: Any) -> Any:
    """Where Discord takes more than it describes: ids as numbers, and media channels (16) among a command's types."""
    if isinstance(body, list):
        return [_normalised(one) for one in body]
    if not isinstance(body, dict):
        return body
    values = {key: _normalised(value) for key, value in body.items()}
    for key, value in values.items():
        if key.endswith("_id") and isinstance(value, int):
            values[key] = str(value)
        if key == "channel_types" and value:
            values[key] = [kind for kind in value if kind != 16]
    return values


@cache
def _document() -> Any:
    return json.loads(SPEC.read_text(encoding="utf-8"))


@cache
def _templates() -> list[tuple[re.Pattern[str], str]]:
    """Every path as a pattern, fixed segments before parameters."""
    paths = sorted(_document()["paths"], key=lambda path: (path.count("{"), path))
    return [(re.compile(re.sub(r"\\\{[^}]+\\\}", "[^/]+", re.escape(path))), path) for path in paths]


def _operation(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    for pattern, template in _templates():
        operation = _document()["paths"][template].get(method) if pattern.fullmatch(path) else None
        if operation is not None:
            return template, operation
    return None


@cache
def _registry() -> Registry[Any]:
    resource = Resource.from_contents(_document(), default_specification=DRAFT202012)
    return Registry().with_resource(_URI, resource)


@cache
def _validator(method: str, template: str) -> Draft202012Validator:
    pointer = template.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")
    schema = {"$ref": f"{_URI}#/paths/{pointer}/{method}/requestBody/content/application~1json/schema"}
    return Draft202012Validator(schema, registry=_registry())
