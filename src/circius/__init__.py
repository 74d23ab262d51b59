"""circius: the whole Mistral 7B system, exact, on the CPU and the GPU you have."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circius.base.config import PRESETS as PRESETS
    from circius.base.config import ModelConfig as ModelConfig
    from circius.base.errors import CirciusError as CirciusError
    from circius.engine.llm import LLM as LLM
    from circius.engine.outputs import CompletionOutput as CompletionOutput
    from circius.engine.outputs import RequestOutput as RequestOutput
    from circius.engine.params import SamplingParams as SamplingParams
    from circius.engine.session import ChatSession as ChatSession
    from circius.model import RollingCache as RollingCache
    from circius.model import Transformer as Transformer

    __version__: str

__all__ = [
    "LLM",
    "PRESETS",
    "ChatSession",
    "CirciusError",
    "CompletionOutput",
    "ModelConfig",
    "RequestOutput",
    "RollingCache",
    "SamplingParams",
    "Transformer",
]


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that `import circius` takes no time."""
    homes = {
        "LLM": "circius.engine.llm",
        "PRESETS": "circius.base.config",
        "ChatSession": "circius.engine.session",
        "CirciusError": "circius.base.errors",
        "CompletionOutput": "circius.engine.outputs",
        "ModelConfig": "circius.base.config",
        "RequestOutput": "circius.engine.outputs",
        "RollingCache": "circius.model",
        "SamplingParams": "circius.engine.params",
        "Transformer": "circius.model",
    }
    if name == "__version__":
        from importlib.metadata import version  # brings the e-mail parser with it

        return version("circius")
    if name not in homes:
        raise AttributeError(f"module 'circius' has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
