"""Weights on disk: opening and loading checkpoints of every format. Nothing is imported before it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circius.weights.checkpoint import KEEP as KEEP
    from circius.weights.checkpoint import Checkpoint as Checkpoint
    from circius.weights.checkpoint import Keep as Keep
    from circius.weights.checkpoint import open_checkpoint as open_checkpoint
    from circius.weights.load import choose_dtype as choose_dtype
    from circius.weights.load import load_model as load_model

_HOMES = (
    ("checkpoint", ("KEEP", "Checkpoint", "Keep", "open_checkpoint")),
    ("load", ("choose_dtype", "load_model")),
)

__all__ = ["KEEP", "Checkpoint", "Keep", "choose_dtype", "load_model", "open_checkpoint"]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES:
        if name in names:
            return getattr(import_module(f"circius.weights.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
