"""Low-rank adapters on disk, as PEFT keeps them: adapter_config.json and adapter_model.safetensors in one folder.

Those that Mistral's own trainer wrote (lora.safetensors beside params.json, with the names and the row order of
consolidated checkpoints) are read too. The first format is that of huggingface/peft 0.17.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from circius.base.config import ModelConfig
from circius.base.errors import CheckpointError, InvalidInputError
from circius.model.adapter import PROJECTIONS, Adapter, AdapterConfig, LowRank
from circius.weights.names import from_consolidated, interleaved_to_half, rotary_heads
from circius.weights.target import new_folder

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
CONSOLIDATED_FILE = "lora.safetensors"
_PEFT_KEY = re.compile(r"(?:base_model\.model\.)?(model\.layers\.\d+\.\w+\.\w+)\.lora_(A|B)(?:\.\w+)?\.weight")
_CONSOLIDATED_KEY = re.compile(r"(layers\.\d+\.\w+\.\w+)\.lora_(A|B)\.weight")
_UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None,),
    "use_qalora": (False, None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),  # others change the base's weights too
}
"""Settings of PEFT that change what an adapter computes, and the values at which they do not."""
Found = dict[str, dict[str, Tensor]]


def read_adapter(folder: Path, config: ModelConfig) -> Adapter:
    """The adapter in a folder, in float32 on the CPU, for a model of that shape.

    Raises:
        CheckpointError: there is none, its files cannot be read, or it needs what is not supported.
        InvalidInputError: it is for a model of another shape.
    """
    folder = Path(folder)
    check_adapter(folder)
    is_peft = (folder / CONFIG_FILE).is_file()
    adapter = _read_peft(folder) if is_peft else _read_consolidated(folder, config)
    adapter.check_fits(config)
    return adapter


def check_adapter(folder: Path) -> None:
    """Does nothing for a folder that holds an adapter, sound or not.

    Raises:
        CheckpointError: it holds none.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}: name the one that holds {CONFIG_FILE}")
    if not any((folder / name).is_file() for name in (CONFIG_FILE, CONSOLIDATED_FILE)):
        raise CheckpointError(
            f"{folder} has no adapter: neither {CONFIG_FILE} (PEFT's) nor {CONSOLIDATED_FILE} (Mistral's) is there"
        )


def write_adapter(folder: Path, adapter: Adapter, *, overwrite: bool = False) -> None:
    """Writes a PEFT folder, whole or not at all.

    Raises:
        StorageError: the folder is there and not to be overwritten, or the disk is full.
    """
    config = adapter.config
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.base_model,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": sorted(config.targets),
        "use_rslora": config.uses_rslora,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
    }
    tensors = {}
    for name, part in adapter.parts.items():
        for letter, tensor in zip("AB", part, strict=True):
            tensors[f"base_model.model.{name}.lora_{letter}.weight"] = tensor.detach().cpu().contiguous()
    with new_folder(folder, n_bytes=adapter.n_bytes, overwrite=overwrite) as target:
        (target / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, target / WEIGHTS_FILE, metadata={"format": "pt"})


def _read_peft(folder: Path) -> Adapter:
    described = _json(folder / CONFIG_FILE)
    if described.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: peft_type is {described.get('peft_type')!r}; only LORA is supported"
        )
    for name, harmless in _UNSUPPORTED.items():
        if described.get(name, harmless[0]) not in harmless:
            raise CheckpointError(f"{folder / CONFIG_FILE}: {name} is {described[name]!r}, which is not supported")
    if not (folder / WEIGHTS_FILE).is_file():
        raise CheckpointError(f"{folder} has {CONFIG_FILE} but no {WEIGHTS_FILE}; pickled adapters (.bin) are not read")
    parts = _pairs(_tensors(folder / WEIGHTS_FILE, _PEFT_KEY, _same), folder)
    try:
        config = AdapterConfig(
            rank=described["r"],
            alpha=described["lora_alpha"],
            targets=_targets(parts),
            uses_rslora=bool(described.get("use_rslora")),
            dropout=described.get("lora_dropout") or 0.0,
            base_model=described.get("base_model_name_or_path"),
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: r and lora_alpha must be there, as numbers ({error})"
        ) from error
    return Adapter(config, parts)


def _read_consolidated(folder: Path, config: ModelConfig) -> Adapter:
    """Rank and scale are in params.json; the rows of query and key are turned as the checkpoint's own."""
    described = _json(folder / "params.json").get("lora")
    if not isinstance(described, dict) or not {"rank", "scaling"} <= described.keys():
        raise CheckpointError(f"{folder / 'params.json'} has no lora section with rank and scaling")
    rank, scaling = described["rank"], described["scaling"]

    def known(name: str) -> str | None:
        translated = from_consolidated(f"{name}.weight")
        return None if translated is None else translated.removesuffix(".weight")

    parts = _pairs(_tensors(folder / CONSOLIDATED_FILE, _CONSOLIDATED_KEY, known), folder)
    turned = {}
    for name, part in parts.items():
        n_heads = rotary_heads(f"{name}.weight", config)
        if n_heads is not None and len(part.up) != n_heads * config.head_dim:
            raise InvalidInputError(
                f"the adapter's pair for {name} has {len(part.up)} rows, not {n_heads * config.head_dim}"
            )
        turned[name] = part if n_heads is None else part._replace(up=interleaved_to_half(part.up, n_heads))
    try:
        adapter_config = AdapterConfig(rank=rank, alpha=scaling * rank, targets=_targets(parts))
    except TypeError as error:
        raise CheckpointError(f"{folder / 'params.json'}: rank and scaling must be numbers ({error})") from error
    return Adapter(adapter_config, turned)


def _same(name: str) -> str | None:
    return name if name.rpartition(".")[2] in PROJECTIONS else None


def _tensors(file: Path, key: re.Pattern[str], known: Callable[[str], str | None]) -> Found:
    """The tensors of a file by the module beside which they stand, then by A and B."""
    found: Found = {}
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dict
                match = key.fullmatch(name)
                module = match and known(match[1])
                if match is None or not module:
                    raise CheckpointError(
                        f"{file}: {name} is beside no matrix that may have an adapter ({', '.join(PROJECTIONS)})"
                    )
                tensor = opened.get_tensor(name)
                if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
                    raise CheckpointError(f"{file}: {name} holds numbers that are not finite")
                found.setdefault(module, {})[match[2]] = tensor.float()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    return found


def _pairs(found: Found, folder: Path) -> dict[str, LowRank]:
    for name, pair in found.items():
        if pair.keys() != {"A", "B"}:
            raise CheckpointError(f"{folder}: {name} has lora_{next(iter(pair))} alone; a pair has both A and B")
    if not found:
        raise CheckpointError(f"{folder}: the adapter's file is empty")
    return {name: LowRank(pair["A"], pair["B"]) for name, pair in sorted(found.items(), key=_place)}


def _place(item: tuple[str, object]) -> tuple[int, str]:
    return int(item[0].split(".")[2]), item[0]


def _targets(parts: Mapping[str, LowRank]) -> tuple[str, ...]:
    used = {name.rpartition(".")[2] for name in parts}
    return tuple(name for name in PROJECTIONS if name in used)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    return content
