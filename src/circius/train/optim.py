"""One optimiser for a run, whatever it is made of: groups of parameters, master copies, a state that can be put down.

What is trained in bfloat16 or float16 has a float32 copy here, which collects the gradients and takes the steps; the
model gets its roundings. Without one a step smaller than a 256th of a weight would be lost, and so would a micro-batch
beside a sum of hundreds. A model in float32 needs no copies.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from circius.base.errors import CheckpointError, CirciusError, ConfigError, InvalidInputError
from circius.train.gradients import clip_gradients
from circius.train.muon import Muon
from circius.weights.names import EMBEDDING

Kind = Literal["adamw", "muon", "adamw8bit"]
_NARROW = (torch.bfloat16, torch.float16)
_HAS_FUSED = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """What an `Optimizer` is made of.

    kind: "adamw"; "muon" for the matrices of the layers, with AdamW for embedding, head and norms; "adamw8bit", whose
        moments take a quarter of the memory (bitsandbytes).
    lr: at the schedule's factor 1. muon_lr, embedding_lr: of those parameters, if it is to be another.
    weight_decay: of matrices; norms have none.
    betas, eps: AdamW's; eps above 0, since what has no gradient would be divided by it. momentum: Muon's.

    Raises:
        ConfigError: a value outside its range, or muon_lr without Muon.
    """

    lr: float
    kind: Kind = "adamw"
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    muon_lr: float | None = None
    embedding_lr: float | None = None
    momentum: float = 0.95

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"an optimiser is {', '.join(get_args(Kind))}, got {self.kind!r}")
        for name in ("lr", "muon_lr", "embedding_lr", "weight_decay", "eps"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"{name} must be 0 or more, got {value!r}")
        if not self.eps:
            raise ConfigError("eps must be above 0: without it a gradient of 0 is divided by 0")
        for name, value in (("betas", self.betas[0]), ("betas", self.betas[1]), ("momentum", self.momentum)):
            if not 0 <= value < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1, got {value!r}")
        if self.muon_lr is not None and self.kind != "muon":
            raise ConfigError(f"muon_lr is for kind 'muon', the kind is {self.kind!r}")


class Group(NamedTuple):
    """Parameters, by name, that share a rate and a decay; `is_muon` says by which method they go."""

    parameters: dict[str, nn.Parameter]
    lr: float
    weight_decay: float
    is_muon: bool


def make_groups(parameters: Mapping[str, nn.Parameter], config: OptimizerConfig) -> list[Group]:
    """Every parameter in one group: matrices with decay, the rest without; Muon's matrices and the embedding apart.

    Parameters that are spread over other processes than the rest are apart too: torch steps a group in one operation.
    """
    groups: dict[tuple[bool, bool, bool, DeviceMesh | None], dict[str, nn.Parameter]] = {}
    for name, parameter in parameters.items():
        is_matrix, is_embedding = parameter.ndim >= 2, name == EMBEDDING
        is_muon = config.kind == "muon" and parameter.ndim == 2 and ".layers." in name
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        groups.setdefault((is_muon, is_matrix, is_embedding, mesh), {})[name] = parameter
    made = []
    for (is_muon, is_matrix, is_embedding, _), own in groups.items():
        apart = config.muon_lr if is_muon else config.embedding_lr if is_embedding else None
        lr = config.lr if apart is None else apart
        made.append(Group(own, lr, config.weight_decay if is_matrix else 0.0, is_muon))
    return made


class Optimizer:
    """Steps of the trained parameters among `parameters`; the others are left alone.

    Its memory is taken at once, so that what does not fit fails before any work is done.

    Raises:
        InvalidInputError: nothing is trained.
        CirciusError: the 8-bit moments need a package that is not there, or the kind needs whole matrices.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig) -> None:
        self.config = config
        self._trained = {name: parameter for name, parameter in parameters if parameter.requires_grad}
        if not self._trained:
            raise InvalidInputError("no parameter requires a gradient: there is nothing to train")
        _check_whole(self._trained, config.kind)
        self._masters = {name: _master(own) for name, own in self._trained.items() if own.dtype in _NARROW}
        self._stepped = {**self._trained, **self._masters}
        self._groups = make_groups(self._stepped, config)
        self._inner = _inner(self._groups, config)
        self._n_steps = torch.zeros(1, dtype=torch.int64)
        self._allocate()

    @property
    def n_steps(self) -> int:
        """How many have been taken."""
        return int(self._n_steps)

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for parameter in (*self._trained.values(), *self._masters.values()):
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """Those that steps are taken with, in their precision, for processes to add up in place; zeros where none came,
        so that a process without a batch has as many as the others."""
        for parameter in self._stepped.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self._stepped.values() if parameter.grad is not None]

    def clip(self, max_norm: float | None) -> float:
        """The norm of all gradients together, which are then scaled down to `max_norm` if they are above it."""
        return clip_gradients(self._stepped.values(), max_norm)

    def step(self, factor: float = 1.0) -> None:
        """Takes one step with the gradients that are there, at `factor` times the learning rates.

        Raises:
            InvalidInputError: a parameter has none.
        """
        for name, parameter in self._stepped.items():
            if parameter.grad is None:
                raise InvalidInputError(f"{name} has no gradient to take a step with: was there a backward pass?")
        rates = {id(own): group.lr for group in self._groups for own in group.parameters.values()}
        for inner in self._inner:
            for settings in inner.param_groups:
                settings["lr"] = rates[id(settings["params"][0])] * factor
            inner.step()
        self._n_steps += 1
        with torch.no_grad():
            for name, master in self._masters.items():
                self._trained[name].copy_(master)

    def state_dict(self) -> dict[str, Tensor]:
        """By name all that it remembers; the tensors in use, not copies: fill them in place, then `load_state_dict`."""
        tensors: dict[str, Tensor] = {"n_steps": self._n_steps}
        tensors |= {f"master.{name}": master.detach() for name, master in self._masters.items()}
        for inner in self._inner:
            for name, own in self._stepped.items():
                state = inner.state.get(own, {})
                tensors |= {f"{key}.{name}": value for key, value in state.items() if _is_kept(key, value)}
        return tensors

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where the optimiser with that state was, to the last bit.

        Raises:
            CheckpointError: it is the state of another optimiser, or of other parameters.
        """
        own = self.state_dict()
        if odd := sorted(own.keys() ^ state.keys()):
            raise CheckpointError(
                f"the optimiser's state does not fit this {self.config.kind} over {len(self._trained)} parameters: "
                f"{len(odd)} entries differ, {odd[0]} first"
            )
        with torch.no_grad():
            for name, tensor in own.items():
                if tensor.shape != state[name].shape or tensor.dtype != state[name].dtype:
                    raise CheckpointError(
                        f"the optimiser's {name} is {tuple(tensor.shape)} of {tensor.dtype}, its state has "
                        f"{tuple(state[name].shape)} of {state[name].dtype}"
                    )
                tensor.copy_(state[name])
        self._count_from(self.n_steps)

    def _allocate(self) -> None:
        """Takes one step of nothing, which makes the methods lay out their memory, and forgets it."""
        kept = {name: parameter.grad for name, parameter in self._stepped.items()}
        for parameter in self._stepped.values():
            parameter.grad = torch.zeros_like(parameter)
        self.step(0.0)
        for name, parameter in self._stepped.items():
            parameter.grad = kept[name]
        for master, own in ((self._masters[name], self._trained[name]) for name in self._masters):
            own.register_post_accumulate_grad_hook(_collector(master))  # type: ignore[no-untyped-call]
        self._n_steps.zero_()
        self._count_from(0)

    def _count_from(self, n_steps: int) -> None:
        """The methods count for each parameter; all of them take every step."""
        for inner in self._inner:
            for state in inner.state.values():
                if isinstance(state.get("step"), Tensor):
                    state["step"].fill_(n_steps)
                elif "step" in state:
                    state["step"] = n_steps


def _master(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().float())


def _collector(master: nn.Parameter) -> Any:
    """Moves what a backward pass leaves at a narrow parameter to its master, in whose precision it is added up."""

    def collect(parameter: Tensor) -> None:
        assert parameter.grad is not None
        if master.grad is None:
            master.grad = parameter.grad.float()
        else:
            master.grad += parameter.grad
        parameter.grad = None

    return collect


def _inner(groups: list[Group], config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Torch's optimisers, at most one of each method."""
    settings: list[dict[str, Any]] = [
        {"params": list(group.parameters.values()), "lr": group.lr, "weight_decay": group.weight_decay}
        for group in groups
    ]
    by_muon = [own for own, group in zip(settings, groups, strict=True) if group.is_muon]
    by_adam = [own for own, group in zip(settings, groups, strict=True) if not group.is_muon]
    made: list[torch.optim.Optimizer] = []
    if by_muon:
        made.append(Muon(by_muon, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum))
    if by_adam and config.kind == "adamw8bit":
        made.append(_eight_bit()(by_adam, lr=config.lr, betas=config.betas, eps=config.eps))
    elif by_adam:
        devices = {parameter.device.type for group in by_adam for parameter in group["params"]}
        fused = devices <= set(_HAS_FUSED)
        made.append(torch.optim.AdamW(by_adam, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused))
    return made


def _eight_bit() -> Any:
    """The class of bitsandbytes, whose state is plain tensors."""
    try:
        return import_module("bitsandbytes.optim").AdamW8bit
    except ImportError as error:
        raise CirciusError(
            f"AdamW with moments in 8 bits needs bitsandbytes ({error}): pip install bitsandbytes, or choose adamw"
        ) from error


def _check_whole(parameters: Mapping[str, nn.Parameter], kind: Kind) -> None:
    split = [name for name, parameter in parameters.items() if isinstance(parameter, DTensor)]
    if split and kind != "adamw":
        raise CirciusError(
            f"{kind} needs whole matrices, but {split[0]} is spread over processes: choose adamw, or keep whole copies "
            "in every process"
        )


def _is_kept(key: str, value: object) -> bool:
    return isinstance(value, Tensor) and key != "step"
