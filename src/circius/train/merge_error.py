"""What merging an adapter costs: how far the logits of the written weights are from those of base and adapter.

Both models go through a short text side by side, in float32, with one layer of each in memory at a time.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from circius.base.errors import TokenizerError
from circius.kernels.linear import linear
from circius.kernels.rows import rms_norm
from circius.model.adapter import AdaptedRows, Adapter
from circius.model.layers import Block
from circius.model.rope import rotation_at
from circius.model.step import FreshStep
from circius.text import load_tokenizer
from circius.weights.names import EMBEDDING, NORM, OUTPUT
from circius.weights.opened import Checkpoint

TEXT = """The mistral is a cold wind that blows from the north through the valley of the Rhône to the sea. It comes when
the air is high over the Bay of Biscay and low over the gulf of Genoa, and it may last for a day or for nine.

Question: Why do the farmers of Provence plant rows of cypress trees?
Answer: Because 1 row shelters a field for about 10 times its height, so that the young plants are not broken.

def knots(metres_per_second: float) -> float:
    return metres_per_second * 3600 / 1852
"""
"""Prose, a dialogue, numbers, code: a little of what models are asked to go on with."""
_IDS_WITHOUT_TOKENIZER = 128


@dataclass(frozen=True, kw_only=True)
class MergeError:
    """How far two models are apart over `n_tokens`.

    largest: the greatest difference of two logits. mean_divergence, largest_divergence: KL(adapter beside the base ||
    merged) in nats a token. agreeing: the share of tokens after which both find the same one likeliest.
    """

    n_tokens: int
    largest: float
    mean_divergence: float
    largest_divergence: float
    agreeing: float


def probe_ids(base: Checkpoint) -> list[int]:
    """The ids of the built-in text; ids spread over the vocabulary where there is no tokenizer that fits."""
    vocab_size = base.config.vocab_size
    try:
        tokenizer = load_tokenizer(base.path)
    except TokenizerError:
        return [index * 7919 % vocab_size for index in range(_IDS_WITHOUT_TOKENIZER)]
    start = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    ids = [*start, *tokenizer.encode(TEXT)]
    return [token for token in ids if token < vocab_size]


@torch.no_grad()
def measure(base: Checkpoint, adapter: Adapter, merged: Checkpoint, ids: list[int]) -> MergeError:
    """The difference between the base with the adapter beside it and the merged weights, over the tokens `ids`."""
    tokens = torch.tensor(ids)
    expected, found = _logits(base, adapter, tokens), _logits(merged, None, tokens)
    largest = float((expected - found).abs().max())
    agreeing = float((expected.argmax(-1) == found.argmax(-1)).double().mean())
    expected, found = (logits.double().log_softmax(-1) for logits in (expected, found))
    divergence = (expected.exp() * (expected - found)).sum(-1).clamp(min=0)
    return MergeError(
        n_tokens=len(ids),
        largest=largest,
        mean_divergence=float(divergence.mean()),
        largest_divergence=float(divergence.max()),
        agreeing=agreeing,
    )


def _logits(checkpoint: Checkpoint, adapter: Adapter | None, tokens: Tensor) -> Tensor:
    config, read = checkpoint.config, partial(checkpoint.read, dtype=torch.float32)
    step = FreshStep(config, [len(tokens)], torch.device("cpu"))
    rotation = rotation_at(step.positions, head_dim=config.head_dim, theta=config.rope_theta)
    adapted = None if adapter is None else AdaptedRows([adapter], [len(tokens)], torch.device("cpu"))
    hidden = checkpoint.read(EMBEDDING)[tokens].float()
    with torch.device("meta"):
        block = Block(config).requires_grad_(False).eval()
    for layer in range(config.n_layers):
        prefix = f"model.layers.{layer}."
        block.load_state_dict({name: read(prefix + name) for name in block.state_dict()}, assign=True)
        adapt = None if adapted is None else partial(adapted.add, layer)
        hidden = block(hidden, rotation, partial(step.attend, layer), adapt)
    hidden = rms_norm(hidden, read(NORM), config.norm_eps)
    return linear(hidden, read(EMBEDDING if config.tied_output else OUTPUT))
