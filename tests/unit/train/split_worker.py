"""One of several processes that hold parts of the same parameters; prints what it found. Run by test_split.py."""

import json
import sys

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from circius.base.errors import CirciusError
from circius.model.adapter import AdapterConfig
from circius.train.lora import LowRankLinear, adapter_of, add_lora, load_into
from circius.train.optim import Optimizer, OptimizerConfig
from tests.models import random_model, tiny_config

SHAPES = [(6, 5), (7,), (4, 4)]
"""Cut by rows; whole in every process, as a DTensor; and as a plain tensor."""


def main(rank: int, n_processes: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=n_processes)
    mesh = init_device_mesh("cpu", (n_processes,))
    found = {dtype: _steps(mesh, getattr(torch, dtype)) for dtype in ("float32", "bfloat16")}
    print(json.dumps({"steps": found, "muon": _muon(mesh), "adapter": _adapter(mesh)}))
    dist.destroy_process_group()


def _placed(x: Tensor, index: int, mesh: DeviceMesh) -> Tensor:
    if index == 2:
        return x
    return distribute_tensor(x, mesh, [Shard(0) if index == 0 else Replicate()])


def _whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def _steps(mesh: DeviceMesh, dtype: torch.dtype) -> list[object]:
    """Norms with parts and with wholes, and whether both took the same steps."""
    torch.manual_seed(0)
    starts = [torch.randn(shape).to(dtype) for shape in SHAPES]
    against = [torch.randn(shape).to(dtype) for shape in SHAPES]
    split = [nn.Parameter(_placed(x.clone(), index, mesh)) for index, x in enumerate(starts)]
    whole = [nn.Parameter(x.clone()) for x in starts]
    norms: list[object] = []
    for parameters in (split, whole):
        optimizer = Optimizer([(str(i), own) for i, own in enumerate(parameters)], OptimizerConfig(lr=0.1))
        for _ in range(2):
            optimizer.zero_grad()
            for index, own in enumerate(parameters):
                other = _placed(against[index], index, mesh) if isinstance(own, DTensor) else against[index]
                _whole((own * other).sum()).backward()
            norms.append(optimizer.clip(1.0))
            optimizer.step()
    same = all(_whole(a.detach()).equal(b.detach()) for a, b in zip(split, whole, strict=True))
    moved = not any(_whole(a.detach()).equal(start) for a, start in zip(split, starts, strict=True))
    return [*norms, same, moved]


def _muon(mesh: DeviceMesh) -> str:
    split = nn.Parameter(_placed(torch.ones(4, 4), 0, mesh))
    try:
        Optimizer([("m", split)], OptimizerConfig(lr=0.1, kind="muon"))
    except CirciusError as error:
        return str(error)
    return "accepted"


def _adapter(mesh: DeviceMesh) -> bool:
    """Whether pairs that are cut come together again, and can be filled."""
    models = [random_model(tiny_config()) for _ in range(2)]
    for model in models:
        add_lora(model, AdapterConfig(rank=4, alpha=8))
        for name, own in model.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(own, std=0.1)
    expected = adapter_of(models[0])
    for module in models[1].modules():
        if isinstance(module, LowRankLinear):
            for pair in (module.lora_A, module.lora_B):
                pair.weight = nn.Parameter(distribute_tensor(pair.weight.detach(), mesh, [Shard(0)]))
    load_into(models[1], expected)
    found = adapter_of(models[1])
    return all(
        a.equal(b) for name in expected.parts for a, b in zip(found.parts[name], expected.parts[name], strict=True)
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
