"""What a fine-tuning is when nobody says more than the model and the data.

Rates are those that others publish for models like this one (alignment-handbook's Zephyr, axolotl's ranges); what is
trained is seen three times, preferences once.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from circius.engine.devices import pick_device
from circius.model.adapter import AdapterConfig
from circius.train.config import (
    CheckpointConfig,
    DType,
    EvaluationConfig,
    Kind,
    RunConfig,
    ScheduleConfig,
    SourceConfig,
)
from circius.train.optim import OptimizerConfig
from circius.weights import open_checkpoint
from circius.weights.hub import resolve

Quantize = Literal["int4", "nf4"]
_SEQ_LEN, _BATCH_TOKENS = 1024, 2048
_EPOCHS = {"finetune": 3.0, "dpo": 1.0}
_RATES = {("finetune", False): 2e-5, ("finetune", True): 2e-4, ("dpo", False): 5e-7, ("dpo", True): 5e-6}
_HELD_OUT = 0.05


def tuning_config(
    kind: Kind,
    model: str,
    data: Sequence[str],
    *,
    lora: AdapterConfig | None = None,
    quantize: Quantize | None = None,
    seq_len: int | None = None,
    device: str = "auto",
) -> RunConfig:
    """The configuration of a "finetune" or a "dpo" with nothing but defaults.

    seq_len: None for 1024, or less where the model's context is shorter.

    Raises:
        ModelNotFoundError, CheckpointError: the model is not there, or cannot be read.
        ConfigError: data that are none.
    """
    context_len = open_checkpoint(resolve(model)).config.context_len
    longest = min(_SEQ_LEN, context_len) if seq_len is None else seq_len
    return RunConfig(
        kind=kind,
        model=model,
        sources=tuple(SourceConfig(path=path) for path in data),
        seq_len=longest,
        batch_tokens=max(_BATCH_TOKENS, 2 * longest if kind == "dpo" else longest),
        n_epochs=_EPOCHS[kind],
        optimizer=OptimizerConfig(lr=_RATES[kind, lora is not None], weight_decay=0.1 if lora is None else 0.0),
        schedule=ScheduleConfig(kind="cosine", warmup=0.1 if kind == "dpo" else 0.03),
        lora=lora,
        quantize=quantize,
        dtype=_dtype(device),
        evaluation=EvaluationConfig(share=_HELD_OUT, every=50),
        checkpoints=CheckpointConfig(every=100),
        device=device,
    )


def _dtype(device: str) -> DType:
    """bfloat16 where there is a GPU for it."""
    place, _ = pick_device(device)
    return "bfloat16" if place.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
