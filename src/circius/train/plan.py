"""What a run takes, before anything is spent: parameters, memory part by part, steps, time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from circius.base.config import ModelConfig
from circius.base.errors import InvalidInputError
from circius.train.config import RunConfig
from circius.train.length import Length
from circius.train.memory import adapter_size, memory_parts
from circius.train.words import duration, size
from circius.weights import open_checkpoint
from circius.weights.hub import resolve

SPARE = 0.9
"""Of the free memory, what a plan may fill: allocators leave some unused."""


class Counted(Protocol):
    """How much there is to learn from; `circius data check` counts so."""

    @property
    def n_examples(self) -> int: ...
    @property
    def n_tokens(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """memory: bytes of one process, by what they are for. tokens_per_step: on average.

    tokens_per_s: None if nobody has measured it. notes: what one should know before the start.
    """

    n_parameters: int
    n_trained: int
    memory: Mapping[str, int]
    n_steps: int
    n_epochs: float
    tokens_per_step: float
    tokens_per_s: float | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def n_tokens(self) -> int:
        """That the whole run reads, about."""
        return round(self.n_steps * self.tokens_per_step)

    @property
    def n_bytes(self) -> int:
        """Of memory, in one process."""
        return sum(self.memory.values())

    @property
    def seconds(self) -> float | None:
        """That the whole run takes at the measured speed."""
        return None if self.tokens_per_s is None else self.n_tokens / self.tokens_per_s

    def lines(self) -> list[tuple[str, str]]:
        """The plan for people, as names and values."""
        rows = [
            ("parameters", f"{self.n_parameters:,}, of which {self.n_trained:,} are trained"),
            ("memory", f"{size(self.n_bytes)}: {self._parts()}"),
            ("steps", f"{self.n_steps:,} of about {self.tokens_per_step:,.0f} tokens"),
            ("in all", f"about {self.n_tokens:,} tokens, {self.n_epochs:.3g} epochs"),
        ]
        if self.seconds is not None:
            rows.append(("time", f"about {duration(self.seconds)}, at {self.tokens_per_s:,.0f} tok/s"))
        return rows

    def check(self, available_bytes: int, config: RunConfig) -> None:
        """Does nothing if the run fits into the memory.

        Raises:
            InvalidInputError: it does not; the message says what would help.
        """
        if self.n_bytes > SPARE * available_bytes:
            raise InvalidInputError(
                f"the run needs about {size(self.n_bytes)} of memory ({self._parts()}), and "
                f"{size(available_bytes)} are free: {remedies(config, self.memory)}"
            )

    def _parts(self) -> str:
        return ", ".join(f"{name} {size(n_bytes)}" for name, n_bytes in self.memory.items() if n_bytes)


def estimate(
    counts: Counted,
    config: RunConfig,
    *,
    shape: ModelConfig | None = None,
    n_data: int = 1,
    device: str = "cpu",
    tokens_per_s: float | None = None,
) -> Plan:
    """The plan of a run over data of which only the counts are known, as if every batch were full.

    shape: of the model, if it has been opened already. n_data: processes that share out the batches.

    Raises:
        ModelNotFoundError, CheckpointError: the model of the run cannot be opened.
    """
    if shape is None:
        shape = config.model if isinstance(config.model, ModelConfig) else open_checkpoint(resolve(config.model)).config
    length = _by_counts(counts, config)
    adapter = 0 if config.lora is None else adapter_size(shape, config.lora)
    return Plan(
        n_parameters=shape.n_parameters + adapter,
        n_trained=adapter or shape.n_parameters,
        memory=memory_parts(shape, config, n_data=n_data, device=device),
        n_steps=length.n_steps,
        n_epochs=length.n_epochs,
        tokens_per_step=length.tokens_per_step,
        tokens_per_s=tokens_per_s,
        notes=advice(config),
    )


def _by_counts(counts: Counted, config: RunConfig) -> Length:
    step_tokens = config.n_batches * config.batch_tokens
    if config.n_steps is not None:
        n_steps = config.n_steps
    elif config.n_tokens is not None:
        n_steps = math.ceil(config.n_tokens / step_tokens)
    else:
        n_steps = max(1, math.ceil((config.n_epochs or 0) * counts.n_tokens / step_tokens))
    return Length(n_steps, float(step_tokens), n_steps * step_tokens / max(1, counts.n_tokens))


def advice(config: RunConfig) -> list[str]:
    """Sentences on settings outside the ranges that have done well (axolotl's and alignment-handbook's figures)."""
    said = []
    lr, low, high, what = config.optimizer.lr, *_usual_rates(config)
    if low is not None and not low / 3 <= lr <= high * 3:
        said.append(f"the learning rate {lr:g} is far from the {low:g} to {high:g} that {what} usually takes")
    if config.clip is None:
        said.append("gradients are not clipped: one bad batch can undo much")
    return said


def _usual_rates(config: RunConfig) -> tuple[float, float, str]:
    if config.kind == "dpo":
        return (5e-6, 5e-5, "an adapter's DPO") if config.lora is not None else (1e-7, 5e-6, "DPO of all weights")
    if config.lora is not None:
        return 1e-4, 3e-4, "an adapter"
    return (1e-4, 2e-2, "pre-training") if config.kind == "pretrain" else (1e-5, 1e-4, "fine-tuning all weights")


def remedies(config: RunConfig, memory: Mapping[str, int]) -> str:
    """What would make a run smaller, the part that takes most first."""
    ways = []
    largest = max(memory, key=lambda name: memory[name])
    if largest in ("activations", "logits") and not config.recompute:
        ways.append("recompute=true")
    if largest in ("activations", "logits") and config.batch_tokens > config.seq_len:
        ways.append(f"a batch_tokens nearer to seq_len ({config.seq_len})")
    if config.lora is None and config.kind != "pretrain":
        ways.append("an adapter (--lora)")
    if config.lora is not None and config.quantize is None:
        ways.append("an adapter beside weights in few bits (--qlora)")
    if config.dtype == "float32" and config.quantize is None:
        ways.append("dtype=bfloat16")
    if config.lora is None:
        ways.append("several processes with parallel.sharing=shards")
    ways.append("a shorter seq_len")
    return f"try {'; or '.join(ways)}"
