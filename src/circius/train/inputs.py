"""From a run's configuration to what it reads: sources to train on, sources to look at, and how much each holds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from circius.base.errors import ConfigError, InvalidInputError
from circius.text import ChatTemplate, Tokenizer
from circius.train.batch import Batch
from circius.train.chat_source import ChatSource
from circius.train.config import RunConfig, SourceConfig
from circius.train.evaluation import HeldOut
from circius.train.example import Example
from circius.train.feed import Drawing
from circius.train.order import permutation
from circius.train.packing import each_once, groups_that_fit
from circius.train.shards import META, read_meta, token_lengths
from circius.train.source import Source
from circius.train.stream import Stream
from circius.train.text_source import TextSource
from circius.train.texts import text_files

B = TypeVar("B")
FindTemplate = Callable[[], ChatTemplate]
TRAIN, HELD_OUT = "train", "held out"
_HELD_OUT_KEY = 7


@dataclass(frozen=True)
class SourceCounts:
    """What one source holds, for plans and reports. role: "train" or "held out"."""

    name: str
    role: str
    n_examples: int
    n_tokens: int

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "role": self.role, "examples": self.n_examples, "tokens": self.n_tokens}


@dataclass(frozen=True, kw_only=True)
class Inputs(Generic[B]):
    """What a run reads. counts: of all sources. notes: what one should know of them.

    new_stream: makes the training's stream, at its beginning.
    """

    new_stream: Callable[[], Drawing[B]]
    held_out: list[HeldOut[B]]
    counts: list[SourceCounts]
    notes: list[str]

    @property
    def mean_tokens(self) -> dict[str, float]:
        """Of an example of each training source."""
        return {one.name: one.n_tokens / one.n_examples for one in self.counts if one.role == TRAIN}

    @property
    def n_examples(self) -> int:
        """To train on."""
        return sum(one.n_examples for one in self.counts if one.role == TRAIN)

    @property
    def n_tokens(self) -> int:
        """To train on."""
        return sum(one.n_tokens for one in self.counts if one.role == TRAIN)


class Part:
    """Some of the examples of a source, in their order."""

    def __init__(self, source: Source, indices: list[int], name: str) -> None:
        self._source, self._indices, self._name = source, indices, name

    @property
    def name(self) -> str:
        return self._name

    def __len__(self) -> int:
        return len(self._indices)

    def n_tokens(self, index: int) -> int:
        return self._source.n_tokens(self._indices[index])

    def example(self, index: int) -> Example:
        return self._source.example(self._indices[index])


def open_inputs(config: RunConfig, tokenizer: Tokenizer, template: FindTemplate) -> Inputs[Batch]:
    """Opens everything that a pre-training or a fine-tuning reads.

    template: called if there are conversations.

    Raises:
        InvalidInputError: a file or an example that cannot be learnt from; the message says where it is.
        TemplateError: there are conversations, and no template for them.
    """
    train: list[Source] = []
    held_out: list[Source] = []
    notes: list[str] = []
    for name, described in named_sources(config):
        source = _open(described, config, tokenizer, template, name, "train")
        notes += _losses(source)
        kept, apart = _divided(source, config, tokenizer, described, name)
        train.append(kept)
        held_out += [apart] if apart is not None else []
    for described in config.evaluation.sources:
        held_out.append(_open(described, config, tokenizer, template, Path(described.path).name, "heldout"))
        notes += _losses(held_out[-1])
    return Inputs(
        new_stream=lambda: Stream(
            train, weights=weights_of(config), batch_tokens=config.batch_tokens, seed=config.seed
        ),
        held_out=[_held_out(source, config.batch_tokens, tokenizer) for source in held_out],
        counts=[*(counted(source, TRAIN) for source in train), *(counted(source, HELD_OUT) for source in held_out)],
        notes=notes,
    )


def named_sources(config: RunConfig) -> list[tuple[str, SourceConfig]]:
    """The training sources with the last part of their path as their name; of several with the same, with a number."""
    names = [Path(source.path).name for source in config.sources]
    return [
        (name if names.count(name) == 1 else f"{name}#{place}", source)
        for place, (name, source) in enumerate(zip(names, config.sources, strict=True))
    ]


def weights_of(config: RunConfig) -> list[float] | None:
    """How often each training source is drawn, if that is said."""
    return [source.weight for source in config.sources if source.weight is not None] or None


def files_of(path: Path) -> list[Path]:
    """A file itself, or those in a folder that `circius data check` would look through.

    Raises:
        InvalidInputError: there is nothing.
    """
    if not path.exists():
        raise InvalidInputError(f"{path}: no such file or folder")
    return text_files([path]) if path.is_dir() else [path]


def apart_indices(n: int, share: float, *, seed: int, name: str) -> tuple[list[int], list[int]]:
    """Which of `n` examples are trained on, and which are kept apart for evaluations; both in order.

    Raises:
        ConfigError: nothing would be left to train on.
    """
    n_apart = max(1, round(share * n))
    if n_apart >= n:
        raise ConfigError(
            f"evaluation.share {share:g} would leave nothing of the {n} examples of {name} to train on: give more of "
            "them, or evaluation.share=0"
        )
    apart = set(permutation(n, seed, _HELD_OUT_KEY)[:n_apart].tolist())
    return [index for index in range(n) if index not in apart], sorted(apart)


def counted(source: Source, role: str) -> SourceCounts:
    """What a source holds."""
    return SourceCounts(source.name, role, len(source), sum(source.n_tokens(index) for index in range(len(source))))


def _open(
    described: SourceConfig, config: RunConfig, tokenizer: Tokenizer, template: FindTemplate, name: str, part: str
) -> Source:
    path = _path_of(described)
    if path.is_dir() and (path / META).is_file():
        return _Texts(path, tokenizer, seq_len=config.seq_len, part=part, name=name)
    files = files_of(path)
    if config.kind == "pretrain":
        raise InvalidInputError(
            f"{path}: pre-training reads folders of token shards: `circius data prepare {path} --tokenizer MODEL "
            "--out FOLDER` makes one"
        )
    return ChatSource(files, template(), seq_len=config.seq_len, too_long=config.too_long, name=name)


def _path_of(described: SourceConfig) -> Path:
    return Path(described.path).expanduser()


class _Texts(TextSource):
    """Shards under the name that their run gives them."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, *, seq_len: int, part: str, name: str) -> None:
        super().__init__(folder, tokenizer, seq_len=seq_len, part=part)
        self._given = name

    @property
    def name(self) -> str:
        return self._given


def _divided(
    source: Source, config: RunConfig, tokenizer: Tokenizer, described: SourceConfig, name: str
) -> tuple[Source, Source | None]:
    """What is trained on, and what is kept apart, if anything is. All examples of a conversation go together: what is
    held out has then been seen in no part of it."""
    if isinstance(source, TextSource):
        path = _path_of(described)
        has_part = config.evaluation.heldout and read_meta(path)["parts"].get("heldout", {}).get("documents")
        apart = _Texts(path, tokenizer, seq_len=config.seq_len, part="heldout", name=f"{name}, held out")
        return source, apart if has_part else None
    if not config.evaluation.share:
        return source, None
    assert isinstance(source, ChatSource)
    whole = source.conversations
    kept, held_out = (
        list(chain.from_iterable(whole[index] for index in own))
        for own in apart_indices(len(whole), config.evaluation.share, seed=config.seed, name=name)
    )
    return Part(source, kept, name), Part(source, held_out, f"{name}, held out")


def _held_out(source: Source, batch_tokens: int, tokenizer: Tokenizer) -> HeldOut[Batch]:
    spelt = source.n_bytes if isinstance(source, TextSource) else _spelling(source, tokenizer)
    return HeldOut(
        name=source.name,
        batches=partial(each_once, source, batch_tokens),
        n_bytes=lambda n_batches: sum(
            map(spelt, chain.from_iterable(islice(groups_that_fit(source, batch_tokens), n_batches)))
        ),
    )


def _spelling(source: Source, tokenizer: Tokenizer) -> Callable[[int], int]:
    """How many bytes the learnt ids of an example spell; the space that begins an answer counts as one."""
    lengths = token_lengths(tokenizer)

    def spelt(index: int) -> int:
        example = source.example(index)
        return int(lengths[example.ids[1:][example.learnt[1:]]].sum())

    return spelt


def _losses(source: Source) -> Iterator[str]:
    """Sentences on conversations that are not, or not as they are, among the examples."""
    if not isinstance(source, ChatSource):
        return
    counts = source.counts
    if counts.n_dropped:
        yield f"{source.name}: {counts.n_dropped} of {counts.n_whole} conversations are too long and left out"
    if counts.n_split:
        yield f"{source.name}: {counts.n_split} of {counts.n_whole} conversations were split between turns"
    if counts.n_lost_answers:
        yield f"{source.name}: {counts.n_lost_answers} answers are too long even by themselves and left out"
