"""Schemas for constrained decoding that leave nothing open for a model to ramble in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_run import tiny_tokenizer

from underhood.infer.grammar import Grammar
from underhood.infer.json_schema import LARGEST_INTEGER, arguments_schema, closed_schema

NUMBER, TEXT = {"type": "number"}, {"type": "string"}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


def admits(schema: dict[str, Any], text: str) -> bool:
    """Whether a model held to the schema could write the text."""
    tokenizer = tiny_tokenizer()
    matcher = Grammar.json_schema(schema).matcher(tokenizer)
    for id in tokenizer.encode(text):
        scores_V = matcher.mask(torch.zeros(tokenizer.vocab_size), ())
        if matcher.stuck or scores_V[id] < 0:
            return False
        matcher.push(id)
    return matcher.accepts


@pytest.mark.parametrize(
    ("schema", "text", "good"),
    [
        ({"properties": {"a": NUMBER}}, '{"a": 1}', True),
        ({"properties": {"a": NUMBER}}, '{"a": 1, "b": 2}', False),
        ({"properties": {"a": NUMBER}, "additionalProperties": True}, '{"a": 1, "b": 2}', True),
        ({"properties": {"a": {"properties": {"x": NUMBER}}}}, '{"a": {"x": 1, "y": 1}}', False),
        ({"items": {"properties": {"x": NUMBER}}}, '[{"x": 1}, {"z": 1}]', False),
        ({"$defs": {"d": {"properties": {"x": NUMBER}}}, "items": {"$ref": "#/$defs/d"}}, '[{"z": 1}]', False),
        ({"anyOf": [{"properties": {"x": NUMBER}}, {"type": "null"}]}, '{"z": 1}', False),
        ({"allOf": [{"properties": {"x": NUMBER}}, {"properties": {"y": TEXT}}]}, '{"x": 1, "y": "a"}', True),
        ({"type": "object"}, '{"any": [1]}', True),
        ({"type": "integer"}, str(LARGEST_INTEGER), True),
        ({"type": "integer"}, "1" * 40, False),
        ({"type": "integer", "minimum": 1000}, "1" * 40, True),
        ({"properties": {"a": NUMBER}}, '{ "a": 1}', False),
        ({"properties": {"a": NUMBER}}, '{"a":  1}', False),
        ({"items": NUMBER}, "[1,\\n 2]", False),
    ],
    ids=lambda value: str(value)[:70],
)
def test_schema_that_leaves_members_open_is_closed(schema: dict[str, Any], text: str, good: bool):
    original = repr(schema)
    assert (
        admits({"type": "object"} | closed_schema(schema) if "properties" in schema else closed_schema(schema), text)
        is good
    )
    assert repr(schema) == original


@pytest.mark.parametrize(
    "parameters",
    [None, {}, {"type": "object"}, {"type": "object", "properties": {}}, {"properties": {}, "required": []}],
)
def test_function_without_arguments_is_called_with_an_empty_object(parameters: dict[str, Any] | None):
    assert arguments_schema(parameters) == NOTHING
    assert admits(NOTHING, "{}")
    assert not admits(NOTHING, '{"a": 1}')


@pytest.mark.parametrize("more", [{}, {"type": "object"}, {"type": ["object", "null"]}, {"type": None}])
def test_arguments_are_an_object_whatever_the_schema_leaves_out(more: dict[str, Any]):
    schema = arguments_schema({"properties": {"a": TEXT}, "required": ["a"]} | more)
    assert admits(schema, '{"a": "b"}')
    for text in ("null", '"a"', "[1]", "{}", '{"a": "b", "c": 1}'):
        assert not admits(schema, text)


def test_free_form_arguments_stay_free():
    assert admits(arguments_schema({"type": "object", "additionalProperties": True}), '{"a": 1, "b": [2]}')
    assert admits(arguments_schema({"additionalProperties": TEXT}), '{"a": "b"}')
    assert not admits(arguments_schema({"additionalProperties": TEXT}), '{"a": 1}')


@pytest.mark.parametrize("kind", ["string", "array", ["string", "null"]])
def test_parameters_that_are_no_object_are_refused(kind: Any):
    with pytest.raises(ValueError, match="object"):
        arguments_schema({"type": kind})
