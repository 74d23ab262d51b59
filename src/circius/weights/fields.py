"""Reading the fields of a model's JSON configuration: missing, mistyped and unsupported ones refused by name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circius.base.errors import CheckpointError

_MOST_LAYERS = 10_000  # beyond any model; a damaged number must not become a table of that size


@dataclass(frozen=True)
class Fields:
    """The fields of one configuration; `file` is where they come from, for messages."""

    file: Path
    values: Mapping[str, Any]

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def whole(self, name: str) -> int:
        """A whole number; a float without a fraction is one too."""
        value = self._required(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            raise CheckpointError(f"{self.file}: {name} must be a whole number, got {value!r}")
        return int(value)

    def n_layers(self, name: str) -> int:
        """A number of layers that a model can have."""
        value = self.whole(name)
        if not 1 <= value <= _MOST_LAYERS:
            raise CheckpointError(f"{self.file}: {name} must be from 1 to {_MOST_LAYERS}, got {value}")
        return value

    def number(self, name: str) -> float:
        value = self._required(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CheckpointError(f"{self.file}: {name} must be a number, got {value!r}")
        return float(value)

    def flag(self, name: str) -> bool:
        """A true or false; false when the field is missing or null."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise CheckpointError(f"{self.file}: {name} must be true or false, got {value!r}")
        return bool(value)

    def refuse_unless(self, name: str, allowed: tuple[object, ...], reason: str) -> None:
        """Raises unless the field is missing, null, or one of `allowed`."""
        value = self.values.get(name)
        if value is not None and value not in allowed:
            raise CheckpointError(f"{self.file}: {name} is {_short(value)}: {reason}, which circius does not implement")

    def _required(self, name: str) -> Any:
        if not self.has(name):
            raise CheckpointError(f"{self.file}: the field {name!r} is missing")
        return self.values[name]


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object that `file` holds.

    Raises:
        CheckpointError: the file cannot be read, or holds no JSON object.
    """
    try:
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: must hold a JSON object, holds a {type(value).__name__}")
    return value


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
