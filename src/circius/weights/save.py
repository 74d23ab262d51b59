"""Writing a whole checkpoint, in any layout, from anything that weights can be read from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from circius.base.config import ModelConfig
from circius.base.errors import InvalidInputError
from circius.model import Transformer
from circius.model.packed_layers import PackedWeight
from circius.weights.cast import short_name
from circius.weights.describe import consolidated_params, hf_config, write_json
from circius.weights.packed import unpacked
from circius.weights.plan import (
    Layout,
    PlannedTensor,
    WeightSource,
    check_layout,
    common_dtype,
    plan_tensors,
    read_planned,
)
from circius.weights.target import new_file, new_folder
from circius.weights.write_gguf import (
    check_gguf_metadata,
    check_quantization,
    gguf_bytes,
    write_gguf,
)
from circius.weights.write_pth import write_pth
from circius.weights.write_safetensors import shard, write_safetensors, write_sharded

Progress = Callable[[int, int], None]
Extra = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class WrittenCheckpoint:
    """What was written, and in `notes` what was chosen on the way, one sentence each."""

    path: Path
    layout: Layout
    stored_as: str
    n_tensors: int
    n_bytes: int
    notes: tuple[str, ...]


def save_model(
    model: Transformer,
    target: Path,
    *,
    to: str = "hf",
    dtype: torch.dtype | None = None,
    quantization: str | None = None,
    overwrite: bool = False,
    extra: Extra | None = None,
    metadata: Mapping[str, object] | None = None,
    on_progress: Progress | None = None,
) -> WrittenCheckpoint:
    """Writes a model in memory as a checkpoint; the arguments are `write_checkpoint`'s.

    Packed weights are written as the float32 numbers that they stand for.

    Raises:
        CirciusError: as `write_checkpoint`.
    """
    return write_checkpoint(
        _ModelSource(model),
        target,
        to=to,
        dtype=dtype,
        quantization=quantization,
        overwrite=overwrite,
        extra=extra,
        metadata=metadata,
        on_progress=on_progress,
    )


def write_checkpoint(
    source: WeightSource,
    target: Path,
    *,
    to: str,
    dtype: torch.dtype | None = None,
    quantization: str | None = None,
    overwrite: bool = False,
    extra: Extra | None = None,
    metadata: Mapping[str, object] | None = None,
    on_progress: Progress | None = None,
) -> WrittenCheckpoint:
    """Writes the weights of `source`, one tensor in memory at a time; `target` appears whole or not at all.

    target: a folder, or with to="gguf" a file whose name ends in .gguf.
    to: "hf" (safetensors and config.json), "consolidated" (consolidated.safetensors and params.json),
        "consolidated-pth" (consolidated.00.pth and params.json) or "gguf".
    dtype: float32, bfloat16 or float16 for every tensor (GGUF's norms stay float32); None changes no value.
    quantization: for GGUF, the block format of all matrices, such as "Q8_0"; given instead of `dtype`.
    overwrite: whether a checkpoint already there is replaced, once the new one is whole.
    extra: called with the unfinished folder before it gets its name, to add the tokenizer's files; an exception
        from it leaves nothing behind. Not for GGUF.
    metadata: for GGUF its further keys, such as the tokenizer's; for "hf" further keys of config.json, such as
        bos_token_id. The consolidated layouts have no place for any.
    on_progress: called with the bytes of weights written so far and in all.

    Raises:
        InvalidInputError: arguments that contradict each other or the layout.
        ConfigError: a model that the layout cannot describe.
        CheckpointError: a value that the dtype cannot hold.
        StorageError: the target exists, or cannot be written.
    """
    layout, more = check_layout(to), dict(metadata or {})
    target = Path(target).expanduser()
    _check_arguments(layout, target, dtype=dtype, quantization=quantization, extra=extra)
    _check_describable(source.config, layout, more)
    plan = plan_tensors(source, layout, torch.float32 if quantization else dtype)
    spelled = check_quantization(quantization, plan) if quantization else None
    shards = shard(plan) if layout == "hf" else [plan]
    order = [planned for one in shards for planned in one]
    tensors = read_planned(source, order, on_progress)
    n_bytes = gguf_bytes(plan, spelled) if layout == "gguf" else sum(planned.n_bytes for planned in plan)
    if layout == "gguf":
        with new_file(target, n_bytes=n_bytes + _text_bytes(more), overwrite=overwrite) as path:
            write_gguf(path, source.config, plan, tensors, quantization=spelled, metadata=more)
            _finish(tensors)
    else:
        with new_folder(target, n_bytes=n_bytes, overwrite=overwrite) as folder:
            _write_folder(folder, layout, source.config, shards, tensors, more)
            _finish(tensors)
            if extra is not None:
                extra(folder)
    return WrittenCheckpoint(
        path=target,
        layout=layout,
        stored_as=spelled or short_name(common_dtype(plan)),
        n_tensors=len(plan),
        n_bytes=n_bytes,
        notes=tuple(_notes(source.config, layout, plan)),
    )


class _ModelSource:
    def __init__(self, model: Transformer) -> None:
        self._weights: dict[str, Tensor | PackedWeight] = dict(model.named_parameters())
        self._weights |= {name: part for name, part in model.named_modules() if isinstance(part, PackedWeight)}
        self.config = model.config
        self.dtype = model.dtype

    def dtype_of(self, name: str) -> torch.dtype:
        return self._weights[name].dtype

    def read(self, name: str) -> Tensor:
        weight = self._weights[name]
        return unpacked(weight.matrix, weight.dtype) if isinstance(weight, PackedWeight) else weight.detach().cpu()


def _write_folder(
    folder: Path,
    layout: Layout,
    config: ModelConfig,
    shards: Sequence[Sequence[PlannedTensor]],
    tensors: Iterator[Tensor],
    more: Mapping[str, object],
) -> None:
    if layout == "hf":
        write_json(folder / "config.json", hf_config(config, common_dtype(shards[0]), more))
        write_sharded(folder, shards, tensors)
        return
    write_json(folder / "params.json", consolidated_params(config))
    if layout == "consolidated":
        write_safetensors(folder / "consolidated.safetensors", shards[0], tensors)
    else:
        write_pth(folder / "consolidated.00.pth", shards[0], tensors)


def _check_arguments(
    layout: Layout,
    target: Path,
    *,
    dtype: torch.dtype | None,
    quantization: str | None,
    extra: Extra | None,
) -> None:
    is_gguf = layout == "gguf"
    if is_gguf != (target.suffix.lower() == ".gguf"):
        needed = "a file whose name ends in .gguf" if is_gguf else "a folder, so its name cannot end in .gguf"
        raise InvalidInputError(f"the target of a {layout} checkpoint is {needed}: got {target}")
    if quantization is not None and not is_gguf:
        raise InvalidInputError(f"only GGUF stores quantised weights, not the {layout} layout")
    if quantization is not None and dtype is not None:
        raise InvalidInputError(
            f"give either a dtype or a quantisation, not both: got {short_name(dtype)} and {quantization}"
        )
    if is_gguf and extra is not None:
        raise InvalidInputError("a GGUF file has no folder for further files: give its tokenizer as metadata")


def _check_describable(config: ModelConfig, layout: Layout, metadata: Mapping[str, object]) -> None:
    """Finds out before any work what the layout cannot say about the model."""
    if layout == "gguf":
        check_gguf_metadata(config, metadata)
    elif layout == "hf":
        hf_config(config, torch.float32, metadata)
    elif metadata:
        raise InvalidInputError(f"params.json has no place for {', '.join(sorted(metadata))}")


def _finish(tensors: Iterator[Tensor]) -> None:
    left_over = next(tensors, None)  # runs to the last report of progress
    assert left_over is None, "a writer must take every planned tensor"


def _text_bytes(metadata: Mapping[str, object]) -> int:
    values = [item for value in metadata.values() for item in (value if isinstance(value, list | tuple) else [value])]
    return sum(16 + len(item) * 4 if isinstance(item, str) else 16 for item in values)


def _notes(config: ModelConfig, layout: Layout, plan: Sequence[PlannedTensor]) -> Iterator[str]:
    common = common_dtype(plan)
    apart = [planned.name for planned in plan if planned.dtype != common]
    if apart and layout != "gguf":
        yield f"{len(apart)} weights, {apart[0]} first, keep their own dtype: {short_name(common)} would round them"
    if layout == "hf" and len(set(config.windows)) > 1:
        yield "some layers have no window: config.json says MinistralForCausalLM (transformers 5)"
    if layout == "gguf" and config.windows[0] is not None:
        yield (
            f"the window of {config.windows[0]} tokens is stored as llama.attention.sliding_window, which circius "
            "reads and llama.cpp ignores: past it, llama.cpp attends to everything"
        )
    if layout.startswith("consolidated") and config.tied_output:
        yield "the output is tied to the embedding: no output.weight is written, and params.json says tied_embeddings"
