"""Mistral for torchtitan 0.3.0, window included: for runs that have outgrown `circius.train`.

Needs the extra `titan`. torchtitan takes a model from any module that it can import:

    torchrun ... -m torchtitan.train --module circius.titan --config mistral_7b \\
        --hf_assets_path FOLDER --dataloader.dataset_path SHARDS

The model is torchtitan's own Llama 3 with grouped queries and a window in its attention; what spreads it over machines
is torchtitan's. Importing this package raises a CirciusError where that torchtitan is not there.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from circius.base.errors import CirciusError

if TYPE_CHECKING:
    from circius.titan.model import model_config as model_config
    from circius.titan.spec import FLAVORS as FLAVORS
    from circius.titan.spec import model_registry as model_registry
    from circius.titan.spec import spec_of as spec_of
    from circius.titan.state_dict import MistralStateDictAdapter as MistralStateDictAdapter

TORCHTITAN = "0.3.0"
"""The version that this was written for; torchtitan moves its modules from one to the next."""

_HOMES = {
    "model_config": "model",
    "FLAVORS": "spec",
    "model_registry": "spec",
    "spec_of": "spec",
    "MistralStateDictAdapter": "state_dict",
}

__all__ = ["FLAVORS", "TORCHTITAN", "MistralStateDictAdapter", "model_config", "model_registry", "spec_of"]


def check_installed() -> None:
    """Does nothing where torchtitan can be used.

    Raises:
        CirciusError: it is not installed, is another version, or lacks something that it imports.
    """
    advice = f'pip install "circius[titan]" installs torchtitan {TORCHTITAN}, which wants Linux and CUDA'
    try:
        found = version("torchtitan")
    except PackageNotFoundError:
        raise CirciusError(f"circius.titan needs torchtitan, which is not installed: {advice}") from None
    if found != TORCHTITAN:
        raise CirciusError(f"circius.titan needs torchtitan {TORCHTITAN}, and {found} is installed: {advice}")
    try:
        import_module("torchtitan.trainer")
    except ImportError as error:
        raise CirciusError(f"torchtitan {found} is installed, but cannot be imported ({error}): {advice}") from error


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"circius.titan.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


check_installed()  # here, since torchtitan itself only says that it cannot import a module, and not why
