"""JSON schemas for constrained decoding: what a schema leaves open is closed, so that a small model can't ramble in it.

JSON Schema admits any further member of an object, and any number of digits. A model that may add members, or digits,
may do so until its tokens are used up. Other servers close objects too (llama.cpp's converter by default, xgrammar in
its strict mode).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMBINING = frozenset({"allOf", "$ref", "$dynamicRef", "if", "dependentSchemas", "not"})
"""Keywords that say more about the same object elsewhere: it can't be closed here."""

OPENING = frozenset({"additionalProperties", "unevaluatedProperties", "patternProperties"})
"""Keywords by which a schema itself says what further members are."""

LIMITS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "const"})
LARGEST_INTEGER = 2**53 - 1

NESTED = ("items", "additionalProperties", "contains")
NESTED_LISTS = ("anyOf", "oneOf", "prefixItems")
NESTED_TABLES = ("properties", "$defs", "definitions")


def closed_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with ``additionalProperties: false`` in each object that names its properties and says no more.

    Integers without limits get those that every reader of JSON can hold (RFC 8259, section 6). A schema that combines
    others with ``allOf`` anywhere stays as it is: closed parts would exclude each other.
    """
    return dict(schema) if _mentions(schema, "allOf") else _closed(schema)


def arguments_schema(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schema of a function's arguments, which are one JSON object.

    Parameters left out, empty, or an object without properties mean a function without arguments.

    Raises:
        ValueError: the parameters admit no object.
    """
    schema = dict(parameters or {})
    kind = schema.get("type") or "object"
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise ValueError(f"a function's parameters are an object, not {kind!r}")
    schema["type"] = "object"
    says_more = (COMBINING | OPENING | {"anyOf", "oneOf", "minProperties"}) & schema.keys()
    if not schema.get("properties") and not says_more:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    return closed_schema(schema)


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    for name in NESTED:
        if name in closed:
            closed[name] = _closed(closed[name])
    for name in NESTED_LISTS:
        if isinstance(closed.get(name), list):
            closed[name] = [_closed(choice) for choice in closed[name]]
    for name in NESTED_TABLES:
        if isinstance(closed.get(name), Mapping):
            closed[name] = {key: _closed(value) for key, value in closed[name].items()}
    if closed.get("type") == "integer" and not LIMITS & closed.keys():
        closed |= {"minimum": -LARGEST_INTEGER, "maximum": LARGEST_INTEGER}
    combined = (COMBINING | {"anyOf", "oneOf"}) & closed.keys()
    if "properties" in closed and not combined and not OPENING & closed.keys():
        closed["additionalProperties"] = False
    return closed


def _mentions(value: Any, keyword: str) -> bool:
    if isinstance(value, Mapping):
        return keyword in value or any(_mentions(child, keyword) for child in value.values())
    return isinstance(value, list) and any(_mentions(child, keyword) for child in value)
