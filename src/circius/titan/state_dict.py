"""Weights between torchtitan's names and those of a Hugging Face checkpoint, which are ours.

torchtitan's names are nearly those of Mistral's consolidated files, and its rows of q and k lie as theirs do, since its
RoPE too turns neighbours; so names and order both come from `circius.weights.names`.
"""

from typing import Any

from torchtitan.models.common.rope import ComplexRoPE
from torchtitan.protocols.state_dict_adapter import StateDictAdapter

from circius.base.errors import CheckpointError
from circius.weights.names import (
    from_consolidated,
    half_to_interleaved,
    interleaved_to_half,
    is_rotary,
    to_consolidated,
)

_QKV, _QKV_HERE = ".attention.w", ".attention.qkv_linear.w"
_OUTPUT, _OUTPUT_HERE = "output.weight", "lm_head.weight"


class MistralStateDictAdapter(StateDictAdapter):  # type: ignore[misc]
    """Reads a Hugging Face folder into torchtitan (`--checkpoint.initial_load_in_hf`), and writes one."""

    def __init__(self, model_config: Any, hf_assets_path: str | None) -> None:
        super().__init__(model_config, hf_assets_path)
        self._validate_hf_rope_config(ComplexRoPE.Config)
        attention = model_config.layers[0].attention
        self._heads = {"q": attention.n_heads, "k": attention.n_kv_heads}

    def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The weights under Hugging Face's names.

        Raises:
            CheckpointError: a name that is not the model's.
        """
        turned = {}
        for name, tensor in state_dict.items():
            theirs = from_consolidated(_consolidated(name))
            if theirs is None:
                raise CheckpointError(f"{name}: no weight of a Mistral in torchtitan")
            turned[theirs] = interleaved_to_half(tensor, self._n_heads(theirs)) if is_rotary(theirs) else tensor
        return turned

    def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
        """The weights under torchtitan's names.

        Raises:
            CheckpointError: a name that is not a Mistral's.
        """
        turned = {}
        for name, tensor in hf_state_dict.items():
            ours = half_to_interleaved(tensor, self._n_heads(name)) if is_rotary(name) else tensor
            turned[_here(name)] = ours
        return turned

    def _n_heads(self, name: str) -> int:
        n_heads: int = self._heads["q" if ".q_proj." in name else "k"]
        return n_heads


def _consolidated(name: str) -> str:
    return _OUTPUT if name == _OUTPUT_HERE else name.replace(_QKV_HERE, _QKV)


def _here(name: str) -> str:
    try:
        consolidated = to_consolidated(name)
    except KeyError as error:
        raise CheckpointError(f"{name}: no weight of a Mistral in a Hugging Face checkpoint") from error
    if consolidated == _OUTPUT:
        return _OUTPUT_HERE
    return consolidated if consolidated.endswith("wo.weight") else consolidated.replace(_QKV, _QKV_HERE)
