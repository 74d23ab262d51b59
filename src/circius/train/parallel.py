"""One model in several processes: batches shared out, weights cut for memory (FSDP2), matrices cut for size (tensor
parallelism).

A step's loss is a sum over all its learnt tokens, divided once by how many they are in all processes together; so
gradients are summed between processes and never averaged. Two processes then take the step that one would have taken,
to the rounding of sums in another order; the same bits across another number of processes are not to be had.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from circius.base.errors import ConfigError
from circius.model import Transformer
from circius.model.layers import Block, Linear
from circius.train.world import World

_COLUMNS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
_ROWS = ("self_attn.o_proj", "mlp.down_proj")
_BUCKET = 2**25
"""Gradients that are sent together, in numbers: few large messages instead of many small ones."""


def split_matrices(model: Transformer, world: World) -> None:
    """Gives each of `n_tensor` processes its heads and its part of the feed-forward's middle.

    The model's `config` then says how many heads this process has. Embeddings, norms and the head are whole in each.

    Raises:
        ConfigError: heads or sizes that cannot be shared out evenly, or weights that are not plain.
    """
    if world.n_tensor == 1:
        return
    check_split(model.config.n_kv_heads, model.config.hidden_dim, world.n_tensor)
    for block in _blocks(model):
        for name in (*_COLUMNS, *_ROWS):
            part = block.get_submodule(name)
            if type(part) is not Linear:
                raise ConfigError(
                    f"parallel.tensor cuts plain matrices, and {name} is a {type(part).__name__}: adapters and "
                    "quantised weights are small, share out the batches instead"
                )
            plain = nn.Linear(part.in_features, part.out_features, bias=False, device="meta")
            plain.weight = part.weight  # torch's own product, which knows of weights in parts
            block.set_submodule(name, plain)
        plan: dict[str, ParallelStyle] = {name: ColwiseParallel() for name in _COLUMNS}
        plan |= {name: RowwiseParallel() for name in _ROWS}
        parallelize_module(block, world.tensor_mesh(), plan)
    config, n = model.config, world.n_tensor
    model.config = replace(config, n_heads=config.n_heads // n, n_kv_heads=config.n_kv_heads // n)


def check_split(n_kv_heads: int, hidden_dim: int, n: int) -> None:
    """Does nothing for a model whose matrices `n` processes can share.

    Raises:
        ConfigError: its heads, or the middle of its feed-forward, cannot be shared out evenly.
    """
    for name, size in (("n_kv_heads", n_kv_heads), ("hidden_dim", hidden_dim)):
        if size % n:
            raise ConfigError(f"parallel.tensor is {n}, and {name}, {size}, is no multiple of it: choose a divisor")


def shard_weights(learner: nn.Module, model: Transformer, world: World) -> None:
    """From now on each of `n_data` processes holds a part of every weight of `model`, inside `learner`, and all of a
    layer's only while it computes."""
    if world.n_data == 1:
        return
    # Gradients are added up in float32, whatever the weights are.
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for module in (*_blocks(model), learner):
        fully_shard(module, mesh=world.data_mesh(), mp_policy=policy)
    for module in learner.modules():
        if isinstance(module, FSDPModule):
            # Sums, not means: gloo takes a mean for a sum in reduce-scatter (pytorch #162338), and the division by the
            # number of learnt tokens is ours anyway.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def sum_gradients(gradients: Sequence[Tensor], world: World) -> None:
    """Adds up, in place, the gradients of processes that hold whole copies of the weights."""
    if world.n_data == 1:
        return
    group = world.data_mesh().get_group()
    for bucket in _buckets([_local(gradient) for gradient in gradients]):
        joined = torch.cat([part.reshape(-1) for part in bucket])
        dist.all_reduce(joined, group=group)
        for part, summed in zip(bucket, torch.split(joined, [part.numel() for part in bucket]), strict=True):
            part.copy_(summed.view_as(part))


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor of which this process may hold a part; every process must ask for it."""
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()


def _blocks(model: Transformer) -> Iterator[Block]:
    return (block for block in model.model.layers if isinstance(block, Block))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype, up to so many numbers."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        is_full = sum(part.numel() for part in bucket) + tensor.numel() > _BUCKET
        if bucket and (is_full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
