"""From what is known of a run to what its loop works with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from circius.base.errors import CirciusError
from circius.model import Transformer
from circius.model.layers import Block
from circius.train.config import RunConfig
from circius.train.config_json import to_json
from circius.train.dpo import PreferenceConfig
from circius.train.forward import recompute_blocks
from circius.train.loop import Pieces, Watcher
from circius.train.objective import LikelyText, Objective
from circius.train.optim import Optimizer
from circius.train.pair_inputs import PairInputs
from circius.train.pairs import PreferredAnswers
from circius.train.parallel import shard_weights, split_matrices
from circius.train.peak import peak_operations
from circius.train.prepared import Prepared
from circius.train.run_folder import CHECKPOINTS, config_hash
from circius.train.said import Prompts
from circius.train.start_model import make_model, start_digest
from circius.train.world import World

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and how much there is."""


def assemble(
    prepared: Prepared, path: Path | None, world: World, watcher: Watcher, on_progress: Progress | None = None
) -> Pieces[Any]:
    """Reads the weights and builds all that the loop works with, at the beginning of the run.

    path: of the run's folder; None for a trial of which nothing is kept.

    Raises:
        CirciusError: weights that cannot be read, or a prompt that cannot be used.
    """
    config, start = prepared.config, prepared.start
    model = make_model(
        start,
        config,
        world.device,
        on_progress=_told(on_progress, "reading weights"),
        on_note=watcher.noted if world.is_first else None,
    )
    base = None
    if config.lora is not None or config.kind == "dpo":  # what is trained beside, and what the reference is
        base = start_digest(model, only_frozen=config.lora is not None)
    if isinstance(prepared.inputs, PairInputs):
        told = _told(on_progress, "asking the reference")
        if path is None:
            prepared.inputs.pretend()
        else:
            prepared.inputs.judge(model, world, batch_tokens=config.batch_tokens, folder=path, on_progress=told)
    split_matrices(model, world)
    objective = _objective(model, config)
    if config.parallel.sharing == "shards":
        shard_weights(objective, model, world)
    recompute_blocks(model, config.recompute)
    if config.compile:
        _compile(model)
    torch.manual_seed((config.seed << 16) + world.data_rank)  # what is dropped out differs between processes
    sampler = None
    if config.samples.prompts:
        sampler = Prompts(model, start.shape, start.tokenizer, prepared.template, config.samples, world)
    return Pieces(
        config=config,
        n_steps=prepared.length.n_steps,
        shape=start.shape,
        objective=objective.train(),
        optimizer=Optimizer(model.named_parameters(), config.optimizer),
        schedule=config.schedule.over(prepared.length.n_steps),
        stream=prepared.inputs.new_stream(),
        held_out=prepared.inputs.held_out,
        sampler=sampler,
        world=world,
        watcher=watcher,
        checkpoints=(path or Path()) / CHECKPOINTS,
        identity={"config": config_hash(to_json(config)), "base": base},
        peak=peak_operations(config, world.device),
    )


def _objective(model: Transformer, config: RunConfig) -> Objective[Any]:
    if config.kind == "dpo":
        return PreferredAnswers(model, config.preference or PreferenceConfig())
    return LikelyText(model, z_loss=config.z_loss)


def _compile(model: Transformer) -> None:
    """Compiles what goes token by token, from outside. Attention stays as it is: which blocks it computes depends on
    the lengths of every batch, so it would be compiled anew all the time.

    Raises:
        CirciusError: torch cannot compile here.
    """
    try:
        for block in model.model.layers:
            assert isinstance(block, Block)
            for part in (block.mlp, block.input_layernorm, block.post_attention_layernorm):
                part.compile(dynamic=True)
    except RuntimeError as error:
        raise CirciusError(f"torch cannot compile here ({error}): run without compile=true") from error


def _told(on_progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if on_progress is None else lambda done, total: on_progress(what, done, total)
