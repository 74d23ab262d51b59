"""The processes of a run: how many there are, which one this is, and what they say to each other.

`torchrun` starts them and tells each its place. Without it there is one, and nothing is ever sent. On CPUs they talk
through gloo, on GPUs through NCCL; the code is the same.
"""

import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from circius.base.errors import CirciusError, ConfigError

T = TypeVar("T")
PATIENCE = datetime.timedelta(minutes=30)
"""How long processes wait for each other: the slowest of them may be writing a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Processes in a grid: `n_data` that share out the batches, times `n_tensor` that share out each matrix.

    data_rank: which batches this process takes. mesh: None for a process alone. is_own: whether the processes were
    brought together by `join_world`, and not before.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    n_data: int = 1
    n_tensor: int = 1
    data_rank: int = 0
    mesh: DeviceMesh | None = None
    is_own: bool = True

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def data_mesh(self) -> DeviceMesh:
        """The processes that hold the same part of every matrix."""
        assert self.mesh is not None
        return self.mesh["data"]

    def tensor_mesh(self) -> DeviceMesh:
        """The processes that take the same batches."""
        assert self.mesh is not None
        return self.mesh["tensor"]

    def summed(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes that take different batches, in float64."""
        if self.n_data == 1:
            return [float(value) for value in values]
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total, group=self.data_mesh().get_group())
        return [float(value) for value in total.tolist()]

    def greatest(self, value: int) -> int:
        """The greatest of all processes' numbers."""
        if self.size == 1:
            return value
        most = torch.tensor(value, device=self.device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        return int(most)

    def from_first(self, value: T) -> T:
        """What the first process has, in every process."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, device=self.device)
        return held[0]

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives this process, once all processes have done theirs.

        Raises:
            CirciusError: in every process what the first of those raised that failed.
        """
        trouble, result = None, None
        try:
            result = work()
        except CirciusError as error:
            if self.size == 1:
                raise
            trouble = error
        for other in self.gathered(trouble):
            if other is not None:
                raise other
        return cast(T, result)

    def gathered(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        held: list[Any] = [None] * self.size
        dist.all_gather_object(held, value)
        return held


def join_world(device: torch.device, *, n_tensor: int = 1) -> World:
    """This process's place among those that torchrun started; alone without torchrun.

    device: its kind decides how processes talk; with CUDA each takes the GPU of its number on its machine.

    Raises:
        ConfigError: the number of processes is no multiple of `n_tensor`.
        CirciusError: the processes do not find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if size % n_tensor:
        raise ConfigError(
            f"parallel.tensor is {n_tensor}, and {size} processes are no multiple of it: start them with "
            f"`torchrun --nproc-per-node {n_tensor} -m circius ...`, or take another number"
        )
    if size == 1:
        return World(device=device)
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    is_own = not dist.is_initialized()
    try:
        if is_own:
            _meet(device)
        mesh = init_device_mesh(device.type, (size // n_tensor, n_tensor), mesh_dim_names=("data", "tensor"))
    except (RuntimeError, ValueError) as error:
        raise CirciusError(f"the {size} processes of the run do not find each other: {error}") from error
    return World(
        device=device,
        rank=rank,
        size=size,
        n_data=size // n_tensor,
        n_tensor=n_tensor,
        data_rank=rank // n_tensor,
        mesh=mesh,
        is_own=is_own,
    )


def _meet(device: torch.device) -> None:
    """Brings the processes together, under a name that only this attempt has: after a restart torchrun's store still
    knows the addresses of processes that are gone (torch 2.13), and gloo would wait for them."""
    store, rank, size = next(iter(rendezvous("env://")))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore(f"circius/{attempt}", store),
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
        device_id=device if device.type == "cuda" else None,
    )


def leave_world(world: World) -> None:
    """The end of `join_world`."""
    if world.size > 1 and world.is_own and dist.is_initialized():
        dist.destroy_process_group()
