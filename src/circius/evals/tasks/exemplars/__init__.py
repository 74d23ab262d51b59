"""Worked examples that papers published, one file a benchmark."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files


def read_exemplars(name: str) -> Sequence[Mapping[str, str]]:
    """The examples for the benchmark of that name, in their order."""
    stored = json.loads(files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
    exemplars: Sequence[Mapping[str, str]] = stored["exemplars"]
    return exemplars
