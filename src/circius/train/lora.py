"""Low-rank adapters in training (LoRA, arXiv 2106.09685): a pair of thin matrices beside each frozen one.

The frozen ones may be plain, packed (model/packed_layers.py) or in NF4 (quant/nf4.py). What is trained has the names of
a PEFT adapter's tensors, without their prefix: `model.layers.0.self_attn.q_proj.lora_A.weight`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from circius.base.errors import InvalidInputError
from circius.model import Transformer
from circius.model.adapter import Adapter, AdapterConfig, LowRank, module_name
from circius.model.layers import Linear
from circius.model.packed_layers import PackedLinear
from circius.quant.nf4 import Nf4Linear


class LowRankLinear(nn.Module):
    """base_layer(x) + scale * lora_B(lora_A(dropout(x))).

    The pair is kept in float32 and multiplied in the dtype of x. It begins with the numbers of PEFT: A as torch's own
    layers do, B with zeros, so that nothing is added yet.
    """

    def __init__(self, base: Linear | PackedLinear | Nf4Linear, config: AdapterConfig) -> None:
        super().__init__()
        inputs, outputs, device = _described(base)
        self.config = config
        self.is_enabled = True
        """Whether the pair is added; without it the layer is its base."""
        self.base_layer = base
        self.lora_A = nn.Linear(inputs, config.rank, bias=False, device=device, dtype=torch.float32)
        self.lora_B = nn.Linear(config.rank, outputs, bias=False, device=device, dtype=torch.float32)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = self.base_layer(x)
        if not self.is_enabled:
            return product
        thin = F.linear(F.dropout(x, self.config.dropout, self.training), self.lora_A.weight.to(x.dtype))
        return product + F.linear(self.config.scale * thin, self.lora_B.weight.to(x.dtype))


def add_lora(model: Transformer, config: AdapterConfig) -> None:
    """Freezes all weights of `model` and puts trainable pairs beside those that `config` names.

    A is drawn from torch's random numbers. Packed matrices take their inputs unrounded from now on, with gradients and
    without, so that the model is the same function in both.

    Raises:
        InvalidInputError: it has pairs already.
    """
    if has_lora(model):
        raise InvalidInputError(
            "this model has trainable pairs already: train those, or merge them and load the result"
        )
    model.requires_grad_(False)
    model.set_activations("float")
    for layer in range(model.config.n_layers):
        for target in config.targets:
            name = module_name(layer, target)
            base = model.get_submodule(name)
            assert isinstance(base, Linear | PackedLinear | Nf4Linear)
            model.replace(name, LowRankLinear(base, config).train(model.training))


def has_lora(model: nn.Module) -> bool:
    """Whether any matrix has a trainable pair beside it."""
    return any(isinstance(module, LowRankLinear) for module in model.modules())


@contextmanager
def enabled(model: nn.Module, on: bool) -> Iterator[None]:
    """Inside, the pairs are added or are not; without them the model is what it was before `add_lora`: a reference
    that costs no memory."""
    pairs = [module for module in model.modules() if isinstance(module, LowRankLinear)]
    before = [pair.is_enabled for pair in pairs]
    try:
        for pair in pairs:
            pair.is_enabled = on
        yield
    finally:
        for pair, was in zip(pairs, before, strict=True):
            pair.is_enabled = was


def adapter_of(model: nn.Module) -> Adapter:
    """A copy of the trained pairs, as `weights/adapter.py` writes them; if they are spread over processes, all call it.

    Raises:
        InvalidInputError: there are none.
    """
    pairs = _pairs(model)
    parts = {name: LowRank(_whole(pair.lora_A.weight), _whole(pair.lora_B.weight)) for name, pair in pairs.items()}
    return Adapter(next(iter(pairs.values())).config, parts)


def load_into(model: nn.Module, adapter: Adapter) -> None:
    """Gives the pairs of `model` the numbers of `adapter`, which must be of the same rank, scale and targets.

    Raises:
        InvalidInputError: it is not, or there are no pairs.
    """
    pairs = _pairs(model)
    config = next(iter(pairs.values())).config
    if (config.rank, config.scale) != (adapter.config.rank, adapter.config.scale):
        raise InvalidInputError(
            f"the adapter has rank {adapter.config.rank} and scale {adapter.config.scale:g}, the model's pairs have "
            f"rank {config.rank} and scale {config.scale:g}: add them with the adapter's own configuration"
        )
    if odd := sorted(pairs.keys() ^ adapter.parts.keys()):
        whose = "the model has no pair" if odd[0] in adapter.parts else "the adapter has none"
        raise InvalidInputError(f"adapter and model have pairs beside different matrices: {whose} beside {odd[0]}")
    for name, pair in pairs.items():
        part = adapter.parts[name]
        for own, given in ((pair.lora_A.weight, part.down), (pair.lora_B.weight, part.up)):
            if own.shape != given.shape:
                raise InvalidInputError(
                    f"the adapter's pair for {name} has shape {tuple(given.shape)} where the model's has "
                    f"{tuple(own.shape)}: was it trained on another model?"
                )
            with torch.no_grad():
                own.copy_(distribute_tensor(given, own.device_mesh, own.placements) if _is_split(own) else given)


def _pairs(model: nn.Module) -> dict[str, LowRankLinear]:
    pairs = {name: module for name, module in model.named_modules() if isinstance(module, LowRankLinear)}
    if not pairs:
        raise InvalidInputError("this model has no trainable pairs: add them with add_lora first")
    return pairs


def _whole(weight: Tensor) -> Tensor:
    return (weight.full_tensor() if _is_split(weight) else weight).detach().clone()


def _is_split(weight: Tensor) -> TypeGuard[DTensor]:
    return isinstance(weight, DTensor)


def _described(base: Linear | PackedLinear | Nf4Linear) -> tuple[int, int, torch.device]:
    """Inputs, outputs, and where it is."""
    if isinstance(base, PackedLinear):
        return base.weight.matrix.n_inputs, base.weight.matrix.n_outputs, base.weight.device
    device = next(base.buffers()).device if isinstance(base, Nf4Linear) else base.weight.device
    return base.in_features, base.out_features, device
