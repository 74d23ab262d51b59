"""What checkpoints are known to say. Facts of real ones come with circius; a file may hold others, in the same form.

    {"format": "circius-facts", "version": 1, "checkpoints": [
        {"name": "...", "shape": {"dim": 4096, ...}, "facts": [{"name": "...", "kind": "greedy", ...}]}]}

`shape` has the fields of `ModelConfig` that must agree. A fact that `tells` is one by which the checkpoint is known
among others of its shape. The kinds are the classes below, whose fields they have.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from circius.base.config import ModelConfig
from circius.base.errors import DataError

FORMAT, VERSION = "circius-facts", 1


@dataclass(frozen=True, kw_only=True)
class Fact:
    """name: for the report. source: who found it. tells: whether it tells this checkpoint from others of its shape."""

    name: str
    source: str
    tells: bool = False

    def tokens(self) -> Sequence[int]:
        """All that the model is to read or to say."""
        return ()

    def wrong(self) -> str:
        """What contradicts itself in the fact; empty where nothing does."""
        return ""


@dataclass(frozen=True, kw_only=True)
class LogitMeans(Fact):
    """The mean over the vocabulary of the logits behind each of `ids`."""

    ids: Sequence[int]
    means: Sequence[float]
    tolerance: float

    def tokens(self) -> Sequence[int]:
        return self.ids

    def wrong(self) -> str:
        return "" if len(self.means) == len(self.ids) else f"{len(self.ids)} ids have {len(self.means)} means"


@dataclass(frozen=True, kw_only=True)
class Logits(Fact):
    """The first logits behind the token at `position`. any_of: as several machines have them; one must agree."""

    ids: Sequence[int]
    position: int
    any_of: Sequence[Sequence[float]]
    tolerance: float

    def tokens(self) -> Sequence[int]:
        return self.ids

    def wrong(self) -> str:
        if not 0 <= self.position < len(self.ids):
            return f"position must be 0 to {len(self.ids) - 1}, got {self.position}"
        return "" if len(set(map(len, self.any_of))) == 1 else "the lists of any_of must be as long as each other"


@dataclass(frozen=True, kw_only=True)
class Greedy(Fact):
    """The likeliest tokens after a prompt, one by one; with their log-probabilities, and those of the prompt's tokens
    but the first, where they are known. prompt: as text, to check the tokenizer too."""

    prompt_ids: Sequence[int]
    ids: Sequence[int]
    prompt: str | None = None
    logprobs: Sequence[float] | None = None
    prompt_logprobs: Sequence[float] | None = None
    tolerance: float = 0.05

    def tokens(self) -> Sequence[int]:
        return [*self.prompt_ids, *self.ids]

    def wrong(self) -> str:
        if self.logprobs is not None and len(self.logprobs) != len(self.ids):
            return f"{len(self.ids)} ids have {len(self.logprobs)} logprobs"
        if self.prompt_logprobs is not None and len(self.prompt_logprobs) != len(self.prompt_ids) - 1:
            return f"{len(self.prompt_ids)} prompt_ids have {len(self.prompt_logprobs)} prompt_logprobs, not one less"
        return ""


@dataclass(frozen=True, kw_only=True)
class Text(Fact):
    """A prompt and what greedily follows, as one text."""

    prompt: str
    max_tokens: int
    whole_text: str
    prompt_ids: Sequence[int] | None = None

    def tokens(self) -> Sequence[int]:
        return self.prompt_ids or ()


@dataclass(frozen=True, kw_only=True)
class Tail(Fact):
    """The last tokens of an answer to a long prompt: `begins`, then `repeats` so many `times`."""

    begins: Sequence[int]
    repeats: Sequence[int]
    times: int
    max_tokens: int
    ids: Sequence[int]

    def tokens(self) -> Sequence[int]:
        return [*self.begins, *self.repeats, *self.ids]


@dataclass(frozen=True, kw_only=True)
class Perplexity(Fact):
    """That of a text which the user must bring, by llama.cpp's protocol."""

    context: int
    value: float
    tolerance: float


KINDS: Mapping[str, type[Fact]] = MappingProxyType(
    {
        "logit_means": LogitMeans,
        "logits": Logits,
        "greedy": Greedy,
        "text": Text,
        "tail": Tail,
        "perplexity": Perplexity,
    }
)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A checkpoint and what is known of it."""

    name: str
    shape: Mapping[str, Any]
    facts: Sequence[Fact]

    def has_shape_of(self, config: ModelConfig) -> bool:
        """Whether a model has this checkpoint's shape; a GGUF file has its numbers in float32."""
        return all(_is_same(getattr(config, name), value) for name, value in self.shape.items())


def known_checkpoints(file: Path | None = None) -> list[Known]:
    """Those that come with circius, or those of a file.

    Raises:
        DataError: the file cannot be read, or is not what it should be; the error says where.
    """
    where = "known.json" if file is None else str(file)
    try:
        raw = (files("circius.evals.verify") / "known.json").read_bytes() if file is None else file.read_bytes()
        found = json.loads(raw)
    except OSError as error:
        raise DataError(f"cannot read {where}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("version") != VERSION:
        raise DataError(f'{where} holds no facts: it must have "format": "{FORMAT}" and "version": {VERSION}')
    if not isinstance(found.get("checkpoints"), list):
        raise DataError(f"{where} has no list of checkpoints")
    return [_known(entry, f"{where}, checkpoint {place}") for place, entry in enumerate(found["checkpoints"])]


def _known(entry: Any, where: str) -> Known:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise DataError(f"{where} has no name")
    shape, facts = entry.get("shape"), entry.get("facts")
    names = {own.name for own in fields(ModelConfig)}
    if not isinstance(shape, dict) or not shape.keys() <= names:
        raise DataError(f"{where}: shape must have fields of a model's configuration, of {', '.join(sorted(names))}")
    if not isinstance(facts, list):
        raise DataError(f"{where} has no list of facts")
    return Known(
        name=entry["name"], shape=shape, facts=[_fact(own, f"{where}, fact {n}") for n, own in enumerate(facts)]
    )


def _fact(entry: Any, where: str) -> Fact:
    kind = KINDS.get(str(entry.get("kind"))) if isinstance(entry, dict) else None
    if kind is None:
        raise DataError(f"{where}: kind must be one of {', '.join(KINDS)}")
    given = {key: value for key, value in entry.items() if key != "kind"}
    own = {field.name: field for field in fields(kind)}
    if odd := given.keys() - own.keys():
        raise DataError(f"{where}: {min(odd)!r} is not known for the kind {entry['kind']}")
    if missing := [name for name, field in own.items() if field.default is MISSING and name not in given]:
        raise DataError(f"{where}: {missing[0]} is missing")
    for name, wanted in get_type_hints(kind).items():
        if name in given and not _fits(given[name], wanted):
            raise DataError(f"{where}: {name} must be {_named(wanted)}, got {given[name]!r:.60}")
    fact = kind(**given)
    if complaint := fact.wrong():
        raise DataError(f"{where}: {complaint}")
    return fact


def _is_same(own: Any, known: Any) -> bool:
    if isinstance(own, float) and isinstance(known, int | float):
        return math.isclose(own, known, rel_tol=1e-6)
    return bool(own == known)


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a JSON value is of a field's type."""
    if isinstance(wanted, UnionType):
        return any(_fits(value, one) for one in get_args(wanted))
    if get_origin(wanted) is Sequence:
        return isinstance(value, list) and bool(value) and all(_fits(one, get_args(wanted)[0]) for one in value)
    if isinstance(value, bool) and wanted is not bool:
        return False
    return isinstance(value, int | float if wanted is float else wanted)


def _named(wanted: Any) -> str:
    """A field's type in the words of JSON.

    >>> _named(Sequence[int]), _named(str | None)
    ('a list that is not empty of a whole number each', 'a text or null')
    """
    if isinstance(wanted, UnionType):
        return " or ".join(map(_named, get_args(wanted)))
    if get_origin(wanted) is Sequence:
        return f"a list that is not empty of {_named(get_args(wanted)[0])} each"
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(wanted, "null")
