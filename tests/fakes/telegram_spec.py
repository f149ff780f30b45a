"""Checks a Bot API request against Telegram's own description of it, where ../shared/specs holds one."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

SPEC = Path(__file__).parents[3] / "shared" / "specs" / "telegram-bot-api-10.1.json"
WHY_ABSENT = f"{SPEC.name} is not beside the repository (../shared/specs)"


@cache
def description() -> dict[str, Any] | None:
    """Methods and types of the Bot API; None where the file is absent."""
    for folder in (SPEC, *(parent / "shared" / "specs" / SPEC.name for parent in SPEC.parents)):
        if folder.is_file():
            loaded: dict[str, Any] = json.loads(folder.read_text(encoding="utf-8"))
            return loaded
    return None


def violations(method: str, params: dict[str, Any]) -> list[str]:
    """What is wrong with the request, in words; `params` as they stood in the form, files as bytes."""
    spec = description()
    if spec is None:
        return []
    if method not in spec["methods"]:
        return [f"{method}: no such method"]
    fields = {field["name"]: field for field in spec["methods"][method].get("fields", [])}
    found = [f"{method}: {name} is missing" for name, one in fields.items() if one["required"] and name not in params]
    for name, value in params.items():
        if name in fields:
            found += _wrong(f"{method}.{name}", _decoded(value, fields[name]["types"]), fields[name]["types"])
        elif not isinstance(value, bytes):
            found.append(f"{method}: {name} is no parameter")
    return found


def _decoded(value: Any, types: list[str]) -> Any:
    """A form holds strings; whatever is not meant as one is JSON."""
    if not isinstance(value, str) or types == ["String"]:
        return value
    try:
        decoded = json.loads(value)
    except ValueError:
        return value
    return value if "String" in types and not isinstance(decoded, int) else decoded


def _wrong(where: str, value: Any, types: list[str]) -> list[str]:
    complaints = [_mismatch(where, value, one) for one in types]
    return [] if any(not one for one in complaints) else min(complaints, key=len)


def _mismatch(where: str, value: Any, type_name: str) -> list[str]:
    if type_name.startswith("Array of "):
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        inner = type_name.removeprefix("Array of ")
        return [line for index, one in enumerate(value) for line in _mismatch(f"{where}[{index}]", one, inner)]
    plain = {"Integer": int, "String": str, "Boolean": bool, "Float": (int, float), "InputFile": (bytes, str)}
    if type_name in plain:
        is_right = isinstance(value, plain[type_name]) and (type_name == "Boolean" or not isinstance(value, bool))  # type: ignore[arg-type]
        return [] if is_right else [f"{where}: {value!r} is no {type_name}"]
    return _object_mismatch(where, value, type_name)


def _object_mismatch(where: str, value: Any, type_name: str) -> list[str]:
    spec = description()
    assert spec is not None, "called with a description only"
    kind = spec["types"][type_name]
    if "subtypes" in kind:
        return _wrong(where, value, kind["subtypes"])
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no {type_name}"]
    fields = {field["name"]: field for field in kind.get("fields", [])}
    found = [f"{where}: {name} is missing" for name, one in fields.items() if one["required"] and name not in value]
    found += [f"{where}: {name} is no field of {type_name}" for name in value if name not in fields]
    for name, inner in value.items():
        if name in fields:
            found += _wrong(f"{where}.{name}", inner, fields[name]["types"])
    return found
