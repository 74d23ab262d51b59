"""The model that a run begins with: random or from a checkpoint; trained whole, or frozen beside an adapter."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from circius.base.config import ModelConfig
from circius.base.errors import ConfigError, ModelNotFoundError
from circius.model import Transformer
from circius.quant.made import make_weight
from circius.quant.nf4 import to_nf4
from circius.quant.policy import Recipe, make_plan
from circius.text import ChatTemplate, Tokenizer, check_vocab, load_chat_template, load_tokenizer
from circius.train.config import InitConfig, RunConfig
from circius.train.lora import add_lora
from circius.weights import Checkpoint, load_model, open_checkpoint
from circius.weights.hub import resolve
from circius.weights.init import STANDARD_DEVIATION, random_weight

Progress = Callable[[int, int], None]
_DIGESTED = 4096
_INTO_THE_STREAM = ("o_proj.weight", "down_proj.weight")


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is known of the model before any weight is read.

    checkpoint: None for random weights. tokenizer_path: where the tokenizer's files are, to go on with the new model.
    """

    shape: ModelConfig
    checkpoint: Checkpoint | None
    tokenizer: Tokenizer
    tokenizer_path: Path
    notes: tuple[str, ...]

    def template(self, name: str) -> ChatTemplate:
        """The chat template of that name, "auto" for the one that came with the tokenizer.

        Raises:
            TemplateError: there is none.
        """
        return load_chat_template(self.tokenizer_path, self.tokenizer, name=name)


def open_start(config: RunConfig) -> Start:
    """Looks at the model and the tokenizer of a run.

    Raises:
        ModelNotFoundError, CheckpointError, TokenizerError: they are not there, damaged, or do not belong together.
        ConfigError: random weights without a tokenizer, or for less than seq_len.
    """
    checkpoint, notes = None, []
    if isinstance(config.model, ModelConfig):
        shape = config.model
        if config.tokenizer is None:
            raise ConfigError(
                "a model that begins with random weights needs a tokenizer: name the one that the shards were made "
                "with (`circius tokenizer train` makes one)"
            )
        if config.seq_len > shape.context_len:
            raise ConfigError(
                f"seq_len is {config.seq_len}, and the model that begins with random weights has a context_len of "
                f"{shape.context_len}, past which it will never be asked: give it a longer one, or a shorter seq_len"
            )
    else:
        checkpoint = open_checkpoint(resolve(config.model))
        shape, notes = checkpoint.config, list(checkpoint.notes)
    path = _path_of(checkpoint) if config.tokenizer is None else _named(config.tokenizer)
    tokenizer = load_tokenizer(path)
    check_vocab(tokenizer, shape.vocab_size)
    if config.seq_len > shape.context_len:
        notes.append(
            f"seq_len is {config.seq_len}, and the model's weights were made for {shape.context_len}: positions past "
            "that are new to it"
        )
    return Start(
        shape=shape,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        tokenizer_path=path,
        notes=(*notes, *tokenizer.notes),
    )


def make_model(
    start: Start,
    config: RunConfig,
    device: torch.device,
    *,
    on_progress: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Transformer:
    """The model to train, on a device, with gradients wherever something is trained.

    on_note: told what was chosen on the way, one sentence each.

    Raises:
        InvalidInputError: a way of quantising that does not fit the weights.
        CheckpointError: weights that cannot be read.
    """
    if start.checkpoint is None:
        model = random_model(start.shape, config.init, seed=config.seed)
    elif config.quantize == "int4":
        model = _in_four_bits(start.checkpoint, on_note)
    else:
        model = load_model(start.checkpoint, dtype=_dtype(config), on_progress=on_progress, on_note=on_note)
    if config.quantize == "nf4":
        to_nf4(model)
    if config.lora is None:
        _own(model)
    model.to(device=device, dtype=None if model.is_packed else _dtype(config))
    if config.lora is not None:
        torch.manual_seed(config.seed)
        add_lora(model, config.lora)
    return model.train()


def random_model(shape: ModelConfig, init: InitConfig, *, seed: int) -> Transformer:
    """A model of random weights in float32; those of `circius init` with the same seed, scaled as `init` says."""
    with torch.device("meta"):
        model = Transformer(shape)
    weights = {}
    for name, parameter in model.named_parameters():
        weight = random_weight(name, tuple(parameter.shape), seed=seed, dtype=torch.float32)
        if weight.ndim == 2:
            weight.mul_(init.std / STANDARD_DEVIATION)
        if name.endswith(_INTO_THE_STREAM):
            weight.mul_({"plain": 1.0, "scaled": (2 * shape.n_layers) ** -0.5, "zero": 0.0}[init.residual])
        weights[name] = weight
    model.place(weights)
    return model


def start_digest(model: Transformer, *, only_frozen: bool) -> str:
    """A name for what a run begins with: of every tensor, or of those that are not trained, the shape and some thousand
    numbers spread over it."""
    digest = hashlib.blake2b(digest_size=16)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, tensor in model.state_dict().items():
        if not only_frozen or name not in trained:
            flat = tensor.detach().reshape(-1)
            some = flat[:: max(1, len(flat) // _DIGESTED)].cpu().contiguous()
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _in_four_bits(checkpoint: Checkpoint, on_note: Callable[[str], None] | None) -> Transformer:
    """Matrices as packed ones: as they are stored if that is in few bits, else rounded to nearest."""
    if checkpoint.is_quantised:
        return load_model(checkpoint, activations="float", on_note=on_note)
    plan = make_plan(checkpoint, Recipe(bits=4))
    weights = {decided.weight.name: make_weight(checkpoint, decided, lambda _: None) for decided in plan.weights}
    weights = {name: made.float() if isinstance(made, Tensor) else made for name, made in weights.items()}
    with torch.device("meta"):
        model = Transformer(checkpoint.config).requires_grad_(False)
    model.place(weights)
    return model


def _own(model: Transformer) -> None:
    """Weights in memory of their own, with gradients: those of a mapped file would end with the file."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module.register_parameter(name, nn.Parameter(parameter.detach().clone()))


def _dtype(config: RunConfig) -> torch.dtype:
    return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32


def _named(tokenizer: str) -> Path:
    """Where a tokenizer is that was named: a file or folder, or a model's name."""
    path = Path(tokenizer).expanduser()
    if path.exists():
        return path
    try:
        return resolve(tokenizer)
    except ModelNotFoundError as error:
        raise ConfigError(f"there is no tokenizer {tokenizer!r} here: name a file or a folder (--tokenizer)") from error


def _path_of(checkpoint: Checkpoint | None) -> Path:
    assert checkpoint is not None
    return checkpoint.path
