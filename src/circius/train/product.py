"""What comes out of a run: a Hugging Face folder of the model with its tokenizer, or a PEFT folder of the adapter."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from circius.base.config import ModelConfig
from circius.model import Transformer
from circius.text import Tokenizer, export_tokenizer
from circius.train.config import RunConfig
from circius.train.lora import adapter_of
from circius.train.parallel import whole
from circius.train.run_folder import ADAPTER, MODEL
from circius.train.start_model import Start
from circius.train.template_file import add_template
from circius.train.world import World
from circius.weights.adapter import write_adapter
from circius.weights.save import save_model


def write_product(model: Transformer, config: RunConfig, start: Start, folder: Path, world: World) -> Path:
    """Writes RUN/model or RUN/adapter in the place of an earlier one, and returns where it is; every process calls it.

    Raises:
        StorageError: it cannot be written.
    """
    if config.lora is not None:
        target = folder / ADAPTER
        adapter = adapter_of(model)
        if world.is_first:
            write_adapter(target, adapter, overwrite=True)
        return target
    target = folder / MODEL
    plain = plain_copy(model, start.shape, world, torch.device("cpu"))
    if world.is_first:
        assert plain is not None

        def add_tokenizer(place: Path) -> None:
            export_tokenizer(start.tokenizer_path, place)
            add_template(place, start.tokenizer, config)

        save_model(plain, target, to="hf", overwrite=True, extra=add_tokenizer, metadata=_ends(start.tokenizer))
    return target


def plain_copy(model: Transformer, shape: ModelConfig, world: World, device: torch.device) -> Transformer | None:
    """The model, whole and in one process: the first one gets it, the others None; every process calls this.

    It is the model itself where that is whole anyway; else a copy on `device`.
    """
    if not is_spread(model):
        return model if world.is_first else None
    weights = {}
    for name, parameter in model.named_parameters():
        gathered = whole(parameter)
        if world.is_first:
            weights[name] = gathered.to(device)
    if not world.is_first:
        return None
    with torch.device("meta"):
        copy = Transformer(shape).requires_grad_(False)
    copy.place(weights)
    return copy.eval()


def is_spread(model: Transformer) -> bool:
    """Whether a process holds but a part of some weight."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


@contextmanager
def evaluating(model: Transformer) -> Iterator[None]:
    """Inside, the model is not in training."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def with_base(config: RunConfig) -> RunConfig:
    """The configuration with the name of the model in its adapter's, for those who read the adapter."""
    if config.lora is None or config.lora.base_model is not None or not isinstance(config.model, str):
        return config
    return replace(config, lora=replace(config.lora, base_model=config.model))


def _ends(tokenizer: Tokenizer) -> dict[str, object]:
    """What config.json says of the tokens that begin and end a text."""
    eos_ids = sorted(tokenizer.eos_ids)
    named = {"bos_token_id": tokenizer.bos_id, "eos_token_id": eos_ids[0] if len(eos_ids) == 1 else eos_ids or None}
    return {name: value for name, value in named.items() if value is not None}
