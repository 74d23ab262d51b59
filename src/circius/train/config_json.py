"""Frozen dataclasses to JSON and back, checked by their annotations: what a run's `run.json` and `--set` speak.

Understood are int, float, bool, str, Literal, tuples of one type, None, dataclasses and unions of these.
"""

import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast

from circius.base.errors import ConfigError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """The value as JSON knows it: dataclasses become objects, tuples arrays."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[T], value: Any, where: str = "") -> T:
    """An instance of the dataclass `cls` from what `to_json` made of one; fields left out take their defaults.

    where: the dotted name of the value, for messages.

    Raises:
        ConfigError: an unknown field, a missing one, a value of the wrong kind, or one that `cls` refuses.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where or cls.__name__} takes fields, got {value!r}")
    hints = typing.get_type_hints(cls)
    known = {field.name: field for field in fields(cast(Any, cls))}
    for name in value:
        if name not in known:
            raise ConfigError(f"{_joined(where, name)}: no such field{_meant(str(name), known)}")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{_joined(where, name)} must be given")
    given = {name: _converted(hints[name], item, _joined(where, name)) for name, item in value.items()}
    return cls(**given)


def set_fields(config: T, assignments: Iterable[str]) -> T:
    """The config with fields set, each by `name=value` with a dotted name; values are JSON, or plain words. The result
    is checked when all are set.

    A name that only one section has need not say which. A section that is None comes into being with its defaults;
    items of a list are named by their number.

    >>> from circius.base.config import PRESETS
    >>> set_fields(PRESETS["v0.1"], ["window_size=none"]).window_size is None
    True

    Raises:
        ConfigError: there is no such field, or it does not take that value.
    """
    content = to_json(config)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"a setting is name=value, such as lr=1e-3, got {assignment!r}")
        path = _full_path(content, name.strip().split("."))
        if path[0] not in content:
            raise ConfigError(f"{path[0]}: no such field{_meant(path[0], content)}")
        place: Any = content
        for depth, part in enumerate(path[:-1]):
            place = _inside(place, part, ".".join(path[: depth + 1]))
        _assign(place, path[-1], _value_of(text.strip()), ".".join(path))
    return from_json(type(config), content)


def differences(old: Any, new: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """The dotted names of the leaves in which two JSON values differ, with both; None for what one has not.

    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
    [('a.b', 1, 3)]
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        return [
            found for name in names for found in differences(old.get(name), new.get(name), _joined(where, str(name)))
        ]
    return [] if old == new else [(where, old, new)]


def _full_path(content: Any, path: list[str]) -> list[str]:
    """The path with the section in front that alone has a field of that name."""
    if path[0] in content:
        return path
    sections = [name for name, value in content.items() if isinstance(value, Mapping) and path[0] in value]
    return [sections[0], *path] if len(sections) == 1 else path


def _inside(place: Any, part: str, where: str) -> Any:
    """The object or array in `place` that `part` names."""
    if isinstance(place, list):
        return place[_index(part, len(place), where)]
    if part not in place:
        raise ConfigError(f"{where}: no such field{_meant(part, place)}")
    if place[part] is None:
        place[part] = {}
    if not isinstance(place[part], dict | list):
        raise ConfigError(f"{where} is {place[part]!r}, which has no fields of its own")
    return place[part]


def _assign(place: Any, part: str, value: Any, where: str) -> None:
    if isinstance(place, list):
        place[_index(part, len(place), where)] = value
    else:
        place[part] = value


def _index(part: str, n_items: int, where: str) -> int:
    if part.isdigit() and int(part) < n_items:
        return int(part)
    raise ConfigError(f"{where}: there are {n_items} of them, numbered from 0")


def _value_of(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        words: dict[str, object] = {"none": None, "yes": True, "no": False}
        return words.get(text.lower(), text)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _converted(hint: Any, value: Any, where: str) -> Any:
    """The value as the annotation wants it."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _one_of(typing.get_args(hint), value, where)
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            raise ConfigError(f"{where} must be one of {_listed(allowed)}, got {value!r}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{where} takes a list, such as [1, 2], got {value!r}")
        kinds = typing.get_args(hint)
        if kinds[-1] is ...:
            kinds = kinds[:1] * len(value)
        if len(kinds) != len(value):
            raise ConfigError(f"{where} takes {len(kinds)} values, got {value!r}")
        return tuple(
            _converted(kind, item, f"{where}.{index}")
            for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )
    if is_dataclass(hint):
        return from_json(cast(type[Any], hint), value, where)
    return _plain(hint, value, where)


def _one_of(hints: Sequence[Any], value: Any, where: str) -> Any:
    """The value as the one annotation of a union that it can be; the error is that of the likeliest."""
    if value is None and type(None) in hints:
        return None
    matching = [hint for hint in hints if _looks_like(hint, value)]
    if not matching:
        raise ConfigError(f"{where} must be {' or '.join(_name(hint) for hint in hints)}, got {value!r}")
    return _converted(matching[0], value, where)


def _looks_like(hint: Any, value: Any) -> bool:
    origin = typing.get_origin(hint)
    if is_dataclass(hint):
        return isinstance(value, Mapping)
    if origin is tuple:
        return isinstance(value, Sequence) and not isinstance(value, str)
    if origin is Literal:
        return value in typing.get_args(hint) or isinstance(value, str)
    if origin in (Union, types.UnionType):
        return any(_looks_like(one, value) for one in typing.get_args(hint))
    return hint is not type(None) and _is_plain(hint, value)


def _is_plain(kind: Any, value: Any) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())  # 1e6 is written for a count
    if kind is float:
        return isinstance(value, int | float)
    return kind is str and isinstance(value, str)


def _plain(kind: Any, value: Any, where: str) -> Any:
    if not _is_plain(kind, value):
        raise ConfigError(f"{where} must be {_name(kind)}, got {value!r}")
    return kind(value)


def _name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "none"}
    if hint in names:
        return names[hint]
    if typing.get_origin(hint) is tuple:
        return "a list"
    if typing.get_origin(hint) is Literal:
        return _listed(typing.get_args(hint))
    return "fields" if is_dataclass(hint) else str(hint)


def _joined(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _meant(name: str, known: Mapping[str, Any]) -> str:
    """Which of the known names was probably meant, fields of sections among them; else all of them."""
    nested = {
        inner: f"{outer}.{inner}" for outer, value in known.items() if isinstance(value, Mapping) for inner in value
    }
    names = {**nested, **{outer: outer for outer in known}}
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {names[close[0]]}?" if close else f"; there are {', '.join(known)}"
