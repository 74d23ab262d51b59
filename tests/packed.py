"""Packed matrices and tiny packed models for tests, rounded to nearest in the plainest way."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from circius.base.config import ModelConfig, Window
from circius.kernels.packed import PackedMatrix, pack
from circius.model import Transformer
from circius.weights.write_packed import PlannedWeight, write_packed
from tests.models import random_model, tiny_config

Weights = dict[str, Tensor | PackedMatrix]


def packable_config(*, window: Window | tuple[Window, ...] = 5, tied: bool = False) -> ModelConfig:
    """All inputs are multiples of 32, the vocabulary no multiple of 16."""
    return replace(tiny_config(window=window, tied=tied), hidden_dim=64)


def rounded(values: Tensor, *, bits: int = 4, group: int = 32, mins: bool = False) -> PackedMatrix:
    """`values` (outputs, inputs) to the nearest codes, with float16 scales."""
    grouped = values.float().view(len(values), -1, group)
    if mins:
        least = grouped.amin(-1).half()
        scales = ((grouped.amax(-1) - least.float()) / 15).half()
        codes = ((grouped - least.float()[..., None]) / scales.float()[..., None]).round().clamp(0, 15)
        return pack(codes.to(torch.uint8).flatten(1), scales, least)
    most = 127 if bits == 8 else 7
    scales = (grouped.abs().amax(-1) / most).half()
    codes = (grouped / scales.float()[..., None]).round().clamp(-most, most)
    codes = codes.to(torch.int8) if bits == 8 else (codes + 8).to(torch.uint8)
    return pack(codes.flatten(1), scales)


def random_weights(config: ModelConfig) -> Weights:
    """Weights of every kind: embedding and output in 8 bits, the others in 4, some with minima, one matrix plain."""
    weights: Weights = {}
    for name, value in random_model(config).state_dict().items():
        if value.ndim == 1 or name.endswith("1.self_attn.o_proj.weight"):
            weights[name] = value
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            weights[name] = rounded(value, bits=8)
        else:
            weights[name] = rounded(value, mins="mlp" in name)
    return weights


def packed_model(config: ModelConfig) -> Transformer:
    model = Transformer(config).requires_grad_(False).eval()
    model.place(random_weights(config))
    return model


def fully_packed_model(config: ModelConfig) -> Transformer:
    """Every matrix in 4 bits, so that the native kernels run whole layers."""
    model = Transformer(config).requires_grad_(False).eval()
    state = random_model(config).state_dict()
    model.place({name: rounded(value) if value.ndim == 2 else value for name, value in state.items()})
    return model


def dense_twin(config: ModelConfig) -> Transformer:
    """The same values in float32."""
    model = Transformer(config).requires_grad_(False).eval()
    model.place({name: w if isinstance(w, Tensor) else w.unpack() for name, w in random_weights(config).items()})
    return model


def plan_of(weights: Weights) -> list[PlannedWeight]:
    return [
        PlannedWeight(name, tuple(w.shape), None, 0, False, w.dtype)
        if isinstance(w, Tensor)
        else PlannedWeight(name, (w.n_outputs, w.n_inputs), w.bits, w.group, w.mins is not None, w.scales.dtype)
        for name, w in weights.items()
    ]


def write_folder(folder: Path, config: ModelConfig, **more: object) -> Path:
    weights = random_weights(config)
    write_packed(folder, config, plan_of(weights), weights.values(), quantization={"bits": 4}, **more)  # type: ignore[arg-type]
    return folder
