"""Specs: frozen dataclasses that describe what to build, and their lossless path to JSON and TOML and back.

A spec says *what*; its `.build()` makes it. Specs nest, so that a whole model is one value that can be compared,
hashed, written into a checkpoint and read back. Where a field's declared type is a protocol or a base class (a slot
that takes any mixer, any feed-forward), the JSON names the concrete class in a ``"type"`` key; where the declared type
is the class itself, nothing is repeated. None is left to the default where the default is None, and written as
``{"type": "none"}`` elsewhere, because TOML has no null and a key left out means the default.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar, Union, cast, get_args, get_origin

from underhood.core.errors import UserError, nearest

T = TypeVar("T")
Json = dict[str, Any]
NONE = {"type": "none"}


def to_json(spec: Any, *, tagged: bool = False) -> Json:
    """A spec as plain JSON values. The inverse is `from_json(type(spec), …)`.

    Args:
        tagged: names the spec's type as well, for readers that take several: `from_json(SomeProtocol, …)`.

    Raises:
        TypeError: the spec holds a value that JSON cannot carry (a programming error).
    """
    if not dataclasses.is_dataclass(spec) or isinstance(spec, type):
        raise TypeError(f"a spec is a dataclass instance, got {spec!r}")
    hints = typing.get_type_hints(type(spec))
    result: Json = {"type": _tag(spec)} if tagged else {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        left_out = value is None and field.default is None
        result[field.name] = None if left_out else _encode(value, hints[field.name])
    return result


def from_json(cls: type[T], data: Json, *, where: str = "config") -> T:
    """Builds a spec of type `cls` from `to_json`'s form; fields that have a default may be left out.

    Args:
        where: how errors call the place, e.g. ``"recipe.toml"``.

    Raises:
        UserError: an unknown or missing key (with the nearest valid name), or a value of the wrong type.
    """
    if not isinstance(data, dict):
        raise UserError(f"{where} is not a table of keys", expected=f"the fields of {cls.__name__}", got=repr(data))
    if getattr(cls, "_is_protocol", False):
        return _decode(data, cls, where)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls)) if field.init}
    for key in data:
        if key not in fields and key != "type":
            near = nearest(key, fields)
            fix = f"did you mean {near}?" if near else f"valid keys: {', '.join(fields)}"
            raise UserError(f"unknown key {key!r} in {where}", fix=fix)
    values: Json = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _decode(data[name], hints[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where} lacks the key {name!r}", expected=_type_name(hints[name]))
    try:
        return cls(**values)
    except ValueError as error:  # the spec's own validation
        raise UserError(f"{where}: {error}") from error


def _tag(spec: Any) -> str:
    return f"{type(spec).__module__}.{type(spec).__qualname__}"


def _encode(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(value, tagged=hint is not type(value))
    if isinstance(value, (tuple, list)):
        inner = _element_hint(hint)
        return [_encode(item, inner) for item in value]
    if isinstance(value, dict):
        inner = get_args(hint)[1] if len(get_args(hint)) == 2 else Any
        return {str(key): _encode(item, inner) for key, item in value.items()}
    if value is None:
        return dict(NONE)
    if isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"no JSON form for {value!r} ({type(value).__name__})")


def _decode(value: Any, hint: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _decode_union(value, get_args(hint), where)
    if isinstance(value, dict) and "type" in value and (hint is Any or isinstance(hint, type)):
        return _decode_tagged(value, (hint,), where)
    if dataclasses.is_dataclass(hint):
        return from_json(cast(type, hint), value, where=where)
    if origin in (tuple, list):
        if not isinstance(value, list):
            raise UserError(f"{where} has the wrong type", expected="a list", got=repr(value))
        args = get_args(hint) or (Any, ...)
        fixed = origin is tuple and args[-1] is not ...
        if fixed and len(value) != len(args):
            raise UserError(f"{where} has the wrong length", expected=str(len(args)), got=str(len(value)))
        hints = args if fixed else [args[0]] * len(value)
        items = [_decode(item, hints[i], f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where} has the wrong type", expected="a table", got=repr(value))
        return {key: _decode(item, get_args(hint)[1], f"{where}.{key}") for key, item in value.items()}
    if origin is typing.Literal:
        if value not in get_args(hint):
            raise UserError(
                f"{where} has no such choice", expected=" | ".join(map(repr, get_args(hint))), got=repr(value)
            )
        return value
    return _decode_scalar(value, hint, where)


def _decode_union(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    if (value is None or value == NONE) and type(None) in choices:
        return None
    rest = [choice for choice in choices if choice is not type(None)]
    if isinstance(value, dict) and "type" in value:
        return _decode_tagged(value, rest, where)
    if len(rest) == 1:
        return _decode(value, rest[0], where)
    for choice in rest:
        try:
            return _decode(value, choice, where)
        except UserError:
            continue
    raise UserError(f"{where} has the wrong type", expected=" | ".join(map(_type_name, rest)), got=repr(value))


def _decode_tagged(value: Json, hints: Sequence[Any], where: str) -> Any:
    """A spec whose class is named in the value, if it is one that fits one of the hints."""
    named = _spec_class(value["type"], where)
    if not any(_fits(named, hint) for hint in hints):
        expected = " | ".join(map(_type_name, hints))
        raise UserError(f"{where} has the wrong type", expected=expected, got=named.__name__)
    return from_json(named, {key: item for key, item in value.items() if key != "type"}, where=where)


def _fits(cls: type, hint: Any) -> bool:
    """Whether a spec of `cls` fits a slot: it is a subclass, or has a protocol's methods with those parameters."""
    if not isinstance(hint, type):
        return hint is Any
    if not getattr(hint, "_is_protocol", False):
        return issubclass(cls, hint)
    methods = {name: method for name, method in vars(hint).items() if name[0] != "_" and inspect.isfunction(method)}
    return all(_parameters(getattr(cls, name, None)) == _parameters(method) for name, method in methods.items())


def _parameters(method: Any) -> list[str] | None:
    return list(inspect.signature(method).parameters) if inspect.isfunction(method) else None


def _decode_scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if getattr(hint, "_is_protocol", False):
        if isinstance(value, dict):
            raise UserError(f"{where} lacks the key 'type'", expected=f"the class of a {_type_name(hint)}")
        raise UserError(f"{where} has the wrong type", expected=_type_name(hint), got=repr(value))
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise UserError(f"{where} has the wrong type", expected=_type_name(hint), got=repr(value))


def _element_hint(hint: Any) -> Any:
    args = get_args(hint)
    return args[0] if args else Any


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _spec_class(path: str, where: str) -> type:
    """The spec class that a ``"type"`` key names. Only this package's own dataclasses: a config file runs no code."""
    module_name, _, class_name = str(path).rpartition(".")
    if not module_name.startswith("underhood."):
        raise UserError(f"{where} names a type outside underhood", got=repr(path))
    try:
        spec_class = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError):
        spec_class = None
    if not (isinstance(spec_class, type) and dataclasses.is_dataclass(spec_class)):
        raise UserError(f"{where} names an unknown type", got=repr(path))
    return spec_class
