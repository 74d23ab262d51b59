"""What a DPO run reads: pairs, and once, before the first step, what its reference thinks of each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from circius.model import Transformer
from circius.train.config import RunConfig
from circius.train.evaluation import HeldOut
from circius.train.inputs import (
    HELD_OUT,
    TRAIN,
    FindTemplate,
    Inputs,
    apart_indices,
    counted,
    files_of,
    named_sources,
    weights_of,
)
from circius.train.pairs import PairBatch, PairSource, PairStream, judged_once, read_pairs
from circius.train.reference import reference_log_probs
from circius.train.world import World


@dataclass(frozen=True, kw_only=True)
class PairInputs(Inputs[PairBatch]):
    """sources: all of them, held-out ones too."""

    sources: list[PairSource] = field(default_factory=list)

    def pretend(self) -> None:
        """Takes every answer for equally likely, to find out how fast a run is."""
        for source in self.sources:
            source.reference = torch.zeros(len(source), 2)

    def judge(
        self,
        model: Transformer,
        world: World,
        *,
        batch_tokens: int,
        folder: Path,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Asks the reference, which is the model before its first step, for each answer's log-probability; what it said
        is kept in `folder`, for when the run goes on. Every process calls this, with the whole model.

        Raises:
            StorageError: it cannot be kept.
        """
        pairs = [pair for source in self.sources for pair in source.pairs]
        found = reference_log_probs(
            model, pairs, batch_tokens=batch_tokens, world=world, folder=folder, on_progress=on_progress
        )
        begin = 0
        for source in self.sources:
            source.reference = found[begin : begin + len(source)]
            begin += len(source)


def open_pair_inputs(config: RunConfig, template: FindTemplate) -> PairInputs:
    """Opens everything that a DPO run reads.

    Raises:
        InvalidInputError: a file or a pair that cannot be learnt from; the message says where it is.
        TemplateError: the model has no template.
    """
    read = partial(read_pairs, template=template(), seq_len=config.seq_len, too_long=config.too_long)
    train: list[PairSource] = []
    held_out: list[PairSource] = []
    notes: list[str] = []
    for name, described in named_sources(config):
        pairs, n_dropped = read(files_of(Path(described.path).expanduser()), name=name)
        notes += _losses(name, n_dropped, len(pairs))
        kept = list(range(len(pairs)))
        if config.evaluation.share:
            kept, apart = apart_indices(len(pairs), config.evaluation.share, seed=config.seed, name=name)
            held_out.append(PairSource(f"{name}, held out", [pairs[index] for index in apart]))
        train.append(PairSource(name, [pairs[index] for index in kept]))
    for described in config.evaluation.sources:
        path = Path(described.path).expanduser()
        pairs, n_dropped = read(files_of(path), name=path.name)
        notes += _losses(path.name, n_dropped, len(pairs))
        held_out.append(PairSource(path.name, pairs))
    return PairInputs(
        new_stream=lambda: PairStream(
            train, weights=weights_of(config), batch_tokens=config.batch_tokens, seed=config.seed
        ),
        held_out=[
            HeldOut(name=source.name, batches=partial(judged_once, source, config.batch_tokens)) for source in held_out
        ],
        counts=[*(counted(source, TRAIN) for source in train), *(counted(source, HELD_OUT) for source in held_out)],
        notes=notes,
        sources=[*train, *held_out],
    )


def _losses(name: str, n_dropped: int, n_kept: int) -> list[str]:
    """A sentence on pairs that are not among the examples, if there are such."""
    return [f"{name}: {n_dropped} of {n_dropped + n_kept} pairs are too long and left out"] if n_dropped else []
