"""What the fields of configurations have in common: counts of something, and words out of a few."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

from circius.base.errors import ConfigError


def check_counts(owner: object, where: str, *names: str) -> None:
    """Does nothing if each of these fields is a whole number, 1 or more, or None.

    where: the section that the fields are of, for messages; empty for the configuration itself.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        value = getattr(owner, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"{_full(where, name)} must be a whole number, 1 or more, got {value!r}")


def check_words(owner: object, where: str, *names: str) -> None:
    """Does nothing if each of these fields, or each item of one that is a tuple, is None or a word that its annotation
    lists: a recipe's Python is checked by nobody else.

    Raises:
        ConfigError: one is not.
    """
    hints = get_type_hints(type(owner))
    for name in names:
        value, allowed = getattr(owner, name), list(_words_of(hints[name]))
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and one not in allowed:
                raise ConfigError(f"{_full(where, name)} must be one of {', '.join(allowed)}, got {one!r}")


def _words_of(hint: Any) -> Iterator[str]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        for inner in get_args(hint):
            yield from _words_of(inner)


def _full(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
