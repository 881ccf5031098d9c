"""Conversion between dataclasses and JSON values, driven by type annotations.

Events and the messages of the window's child process are encoded with it. Supports what their fields use: the types of
JSON, nested dataclasses, typed dictionaries, tuples, lists, mappings with text keys, paths, literals and unions. A
`Sequence` is decoded as a tuple. JSON has no NaN and no infinities: both are encoded as null, which a `float` field
decodes as NaN.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

T = TypeVar("T")
Decoder = Callable[[Any], Any]


def encode(value: Any) -> Any:
    """Return `value` as JSON values: dataclasses become objects, tuples become arrays, NaN and infinities null.

    Raises:
        TypeError: a value cannot be encoded as JSON.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value):
        kind: Any = type(value)
        return {name: encode(getattr(value, name)) for name in _field_names(kind)}
    raise TypeError(f"{type(value).__name__} cannot be encoded as JSON")


def decode(kind: type[T], value: Any) -> T:
    """Return the instance of `kind` that `value` encodes; fields with a default may be missing, others are ignored.

    Raises:
        TypeError, ValueError: `value` does not encode a `kind`, or a class rejects its values.
    """
    annotation: Any = kind
    return cast("T", _decoder(annotation)(value))


@functools.cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.init)


@functools.cache
def _decoder(kind: Any) -> Decoder:
    """Return the function that decodes values of a type annotation."""
    if kind is Any:
        return lambda value: value
    if kind is float:
        return _float
    if kind is Path:
        return lambda value: Path(_exact(str, value))
    if kind in (str, int, bool, list, dict, types.NoneType):
        return functools.partial(_exact, kind)
    if is_dataclass(kind):
        return _dataclass_decoder(cast("type", kind))
    if is_typeddict(kind):
        return _typed_dict_decoder(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return functools.partial(_literal, arguments)
    if origin in (Union, types.UnionType):
        return functools.partial(_union, tuple((option, _decoder(option)) for option in arguments))
    if origin is tuple and arguments[1:] != (...,):
        return functools.partial(_fixed_tuple, tuple(map(_decoder, arguments)))
    if origin in (tuple, list, Sequence):
        return functools.partial(_sequence, list if origin is list else tuple, _decoder(arguments[0]))
    if origin in (dict, Mapping) and arguments[0] is str:
        return functools.partial(_mapping, _decoder(arguments[1]))
    raise TypeError(f"fields of type {kind} cannot be decoded")


def _dataclass_decoder(kind: type) -> Decoder:
    hints = get_type_hints(kind)
    decoders = tuple((name, _decoder(hints[name])) for name in _field_names(kind))

    def decode_fields(value: Any) -> Any:
        _exact(dict, value)
        found = {}
        for name, decoder in decoders:
            if name in value:
                try:
                    found[name] = decoder(value[name])
                except TypeError as error:
                    raise TypeError(f"{kind.__name__}.{name}: {error}") from error
        return kind(**found)

    return decode_fields


def _typed_dict_decoder(kind: Any) -> Decoder:
    decoders = {name: _decoder(hint) for name, hint in get_type_hints(kind).items()}

    def decode_items(value: Any) -> Any:
        missing = sorted(kind.__required_keys__ - _exact(dict, value).keys())
        if missing:
            raise TypeError(f"{kind.__name__}: {missing[0]} is missing")
        found = {}
        for name, item in value.items():
            if name in decoders:
                try:
                    found[name] = decoders[name](item)
                except TypeError as error:
                    raise TypeError(f"{kind.__name__}.{name}: {error}") from error
        return found

    return decode_items


def _exact(kind: type, value: Any) -> Any:
    if type(value) is kind:
        return value
    raise TypeError(f"{_short(value)} is not {kind.__name__}")


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if value is None:
        return math.nan
    if type(value) is int and abs(value) < 1 << 1023:
        return float(value)
    raise TypeError(f"{_short(value)} is not float")


def _literal(options: tuple[Any, ...], value: Any) -> Any:
    if any(type(value) is type(option) and value == option for option in options):
        return value
    raise TypeError(f"{_short(value)} is not one of {', '.join(map(repr, options))}")


def _union(options: tuple[tuple[Any, Decoder], ...], value: Any) -> Any:
    """Decode with the first option that accepts the value; null is None if None is an option."""
    if value is None and any(kind is types.NoneType for kind, _ in options):
        return None
    for _kind, decoder in options:
        try:
            return decoder(value)
        except TypeError:
            continue
    raise TypeError(f"{_short(value)} is none of {', '.join(str(kind) for kind, _ in options)}")


def _fixed_tuple(items: tuple[Decoder, ...], value: Any) -> tuple[Any, ...]:
    if len(_exact(list, value)) != len(items):
        raise TypeError(f"{_short(value)} does not have {len(items)} items")
    return tuple(decoder(item) for decoder, item in zip(items, value, strict=True))


def _sequence(kind: type, decoder: Decoder, value: Any) -> Any:
    return kind(map(decoder, _exact(list, value)))


def _mapping(decoder: Decoder, value: Any) -> dict[str, Any]:
    return {_exact(str, key): decoder(item) for key, item in _exact(dict, value).items()}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
