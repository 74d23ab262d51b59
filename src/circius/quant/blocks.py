"""Rounding the matrices of a block one after the other, each for what the rounded ones before it give."""

from collections.abc import Mapping

import torch
from torch import nn

from circius.base.config import ModelConfig
from circius.model.layers import Block
from circius.quant.calibration import Calibration
from circius.quant.gptq import factorise, round_compensated
from circius.quant.made import Made, OnPacked, make_weight, tell, values_of
from circius.quant.policy import Decided
from circius.weights.opened import Checkpoint

_STAGES = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""The matrices of a block in the order of a forward; those of a stage are fed the same."""


def empty_block(config: ModelConfig) -> Block:
    """A block whose weights are without memory, to be filled again and again."""
    with torch.device("meta"):
        return Block(config).requires_grad_(False).eval()


def round_block(
    checkpoint: Checkpoint,
    layer: int,
    decided: Mapping[str, Decided],
    block: Block,
    calibration: Calibration,
    on_packed: OnPacked,
) -> list[Made]:
    """The weights of one layer in the order of `decided`. `block` has their values afterwards.

    decided: all weights of the model. 4-bit matrices are rounded with compensation, all others as without.
    """
    prefix = f"model.layers.{layer}."
    names = [name for name in decided if name.startswith(prefix)]
    made: dict[str, Made] = {}
    values = {}
    for name in names:
        if decided[name].is_compensated:
            values[name] = checkpoint.read(name, dtype=torch.float32)
        else:
            made[name] = make_weight(checkpoint, decided[name], on_packed)
            values[name] = values_of(made[name])
    block.load_state_dict({name.removeprefix(prefix): value for name, value in values.items()}, assign=True)
    del values
    for stage in _STAGES:
        linears = {f"{prefix}{member}.weight": block.get_submodule(member) for member in stage}
        waiting = [name for name in linears if name not in made]
        if not waiting:
            continue
        factor = factorise(calibration.products(block, layer, _linear(linears[waiting[0]])))
        for name in waiting:
            linear = _linear(linears[name])
            packed = round_compensated(linear.weight.detach(), factor, decided[name].grid)
            made[name] = tell(decided[name], packed, on_packed)
            linear.weight.copy_(packed.matrix.unpack())
    return [made[name] for name in names]


def _linear(module: nn.Module) -> nn.Linear:
    assert isinstance(module, nn.Linear)
    return module
