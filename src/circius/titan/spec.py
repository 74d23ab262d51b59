"""The shapes that torchtitan can name, and what it must know of each."""

from collections.abc import Mapping
from types import MappingProxyType

from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.models.llama3 import parallelize_llama
from torchtitan.protocols.model_spec import ModelSpec

from circius.base.config import PRESETS, ModelConfig
from circius.base.errors import ConfigError
from circius.titan.model import model_config
from circius.titan.state_dict import MistralStateDictAdapter

FLAVORS: Mapping[str, ModelConfig] = MappingProxyType(
    {
        "mistral_7b": PRESETS["v0.1"],
        "mistral_7b_v03": PRESETS["v0.3"],
        "mistral_debug": ModelConfig(
            dim=256,
            n_layers=4,
            head_dim=32,
            hidden_dim=896,
            n_heads=8,
            n_kv_heads=2,
            vocab_size=32_768,  # of the largest of Mistral's first three vocabularies, so that any of them fits
            context_len=2_048,
            window_size=128,
        ),
    }
)
"""Shapes by the name of torchtitan's flavour."""


def model_registry(flavor: str, attn_backend: str = "flex") -> ModelSpec:
    """What torchtitan must know of one of `FLAVORS`.

    attn_backend: as for `model_config`.

    Raises:
        ConfigError: a flavour or a backend that does not exist.
    """
    if flavor not in FLAVORS:
        raise ConfigError(f"no flavour {flavor!r}: circius.titan has {', '.join(FLAVORS)}; for others see spec_of")
    return spec_of(FLAVORS[flavor], flavor=flavor, attn_backend=attn_backend)


def spec_of(shape: ModelConfig, *, flavor: str, attn_backend: str = "flex") -> ModelSpec:
    """What torchtitan must know of a model of any shape.

    Raises:
        ConfigError: as `model_config`.
    """
    return ModelSpec(
        name="mistral",
        flavor=flavor,
        model=model_config(shape, attn_backend),
        parallelize_fn=parallelize_llama,
        pipelining_fn=pipeline_llm,
        post_optimizer_build_fn=None,
        state_dict_adapter=MistralStateDictAdapter,
    )
