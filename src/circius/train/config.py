"""What a run is: frozen dataclasses, checked when they are made; a recipe is a function that returns a `RunConfig`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from circius.base.config import ModelConfig
from circius.base.errors import ConfigError
from circius.model.adapter import AdapterConfig
from circius.train.config_checks import check_counts, check_words
from circius.train.config_json import differences, to_json
from circius.train.dpo import PreferenceConfig
from circius.train.optim import OptimizerConfig
from circius.train.schedule import Descent, Schedule
from circius.train.schedule import Kind as ScheduleKind
from circius.train.too_long import TooLong

Kind = Literal["pretrain", "finetune", "dpo"]
DType = Literal["float32", "bfloat16"]
FREE = (
    "n_steps", "n_epochs", "n_tokens", "log_every", "evaluation.every", "evaluation.patience", "evaluation.least_gain",
    "samples", "checkpoints", "parallel", "trackers", "device", "recompute", "compile",
)  # fmt: skip
"""What may be changed when a run goes on: how long, how often one looks, and where it is computed."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where examples come from, and how much of the mixture they are.

    path: a folder of shards that `circius data prepare` made, or a file of conversations or preferences.
    weight: how often it is drawn, beside the others; all sources have one, or none, which draws each as often as it has
        examples.
    """

    path: str
    weight: float | None = None

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("a source needs a path")
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise ConfigError(f"the weight of {self.path} must be above 0, got {self.weight!r}")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate goes: `circius.train.schedule` says what the kinds are.

    warmup, decay: in steps, or below 1 as a share of all steps. decay is for "wsd".
    """

    kind: ScheduleKind = "cosine"
    warmup: float = 0.03
    decay: float = 0.0
    floor: float = 0.0
    descent: Descent = "linear"

    def over(self, n_steps: int) -> Schedule:
        """The schedule of a run of so many steps.

        Raises:
            ConfigError: numbers that do not fit into it.
        """
        warmup, decay = (_part(name, getattr(self, name), n_steps) for name in ("warmup", "decay"))
        return Schedule(
            n_steps=n_steps,
            kind=self.kind,
            n_warmup=warmup,
            n_decay=decay,
            floor=self.floor,
            descent=self.descent,
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The loss of texts that are not trained on.

    heldout: whether the part that folders of shards keep apart is evaluated. share: of the conversations or preferences
    of every source, kept from training for this. sources: others beside them.
    every: steps; there is one at the end in any case. max_batches: of each source, None for all of it.
    patience: evaluations without a gain of more than `least_gain` after which the run ends; None for never.
    """

    sources: tuple[SourceConfig, ...] = ()
    heldout: bool = True
    share: float = 0.0
    every: int = 100
    max_batches: int | None = None
    patience: int | None = None
    least_gain: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigError(f"evaluation.share must be at least 0 and below 1, got {self.share!r}")
        if not 0 <= self.least_gain < math.inf:
            raise ConfigError(f"evaluation.least_gain must be 0 or more, got {self.least_gain!r}")
        check_counts(self, "evaluation", "every", "max_batches", "patience")


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """What the model says while it learns: to each prompt, greedily and once by chance, with a seed.

    prompts: texts to go on with, or in a fine-tuning what a user says. every: steps; at the end in any case.
    """

    prompts: tuple[str, ...] = ()
    every: int = 500
    max_tokens: int = 64
    temperature: float = 0.8

    def __post_init__(self) -> None:
        check_counts(self, "samples", "every", "max_tokens")
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"samples.temperature must be above 0, got {self.temperature!r}")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """every: steps; at the end in any case. keep_last: how many. keep_best: the one of the lowest evaluation too.

    export: whose weights the finished model gets, the last ones or those of the lowest evaluation.
    """

    every: int = 500
    keep_last: int = 2
    keep_best: bool = False
    export: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        check_counts(self, "checkpoints", "every", "keep_last")
        check_words(self, "checkpoints", "export")
        if self.export == "best" and not self.keep_best:
            raise ConfigError('checkpoints.export "best" needs checkpoints.keep_best')


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How `torchrun`'s processes share a run.

    sharing: whether those with different batches hold whole copies of the weights, or a part each (FSDP2).
    tensor: how many processes cut each matrix between them.
    """

    sharing: Literal["copies", "shards"] = "copies"
    tensor: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "parallel", "tensor")
        check_words(self, "parallel", "sharing")


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Random weights: normal with the standard deviation `std`, norms of ones.

    residual: those that write into the residual stream (o_proj, down_proj): "scaled" by 1 / sqrt(2 layers) as GPT-2's,
    "zero", so that every block begins as the identity, or "plain".
    """

    std: float = 0.02
    residual: Literal["scaled", "zero", "plain"] = "scaled"

    def __post_init__(self) -> None:
        if not 0 < self.std < math.inf:
            raise ConfigError(f"init.std must be above 0, got {self.std!r}")
        check_words(self, "init", "residual")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run. Exactly one of n_steps, n_epochs and n_tokens says how long it is.

    model: a shape, to begin with random weights; or where weights are: a folder, a file, an alias.
    tokenizer: where it is; None for the model's own, or the one that the shards were made with.
    template: of chats, "auto" for the model's. too_long: what becomes of conversations longer than seq_len: "error",
        "drop", or "split" between turns.
    seq_len: the longest example. batch_tokens: the most tokens computed at once. step_tokens: those of one step, a
        multiple of batch_tokens, which is its default.
    clip: the norm to which gradients are scaled down. guard: by how many standard deviations a step may stand out
        before it is skipped; None skips only what is no number.
    dtype: of the weights while computing; in bfloat16 the optimiser has float32 copies of what is trained.
    recompute: keep only what goes into each layer, and compute the rest again on the way back.
    preference: of a DPO run, which has its defaults without it. init: of random weights.
    lora: train an adapter and nothing else. quantize: the frozen weights beside it in 4 bits, "int4" as our kernels
        have them (those of a quantised checkpoint as they are), or "nf4".
    trackers: who else is told the figures of `metrics.jsonl`; None for TensorBoard if that is installed.

    Raises:
        ConfigError: values outside their ranges, or that contradict each other.
    """

    kind: Kind
    model: ModelConfig | str
    sources: tuple[SourceConfig, ...]
    seq_len: int
    batch_tokens: int
    step_tokens: int | None = None
    n_steps: int | None = None
    n_epochs: float | None = None
    n_tokens: int | None = None
    tokenizer: str | None = None
    template: Literal["auto", "v1", "v2", "v3", "model"] = "auto"
    too_long: TooLong = "error"
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-3))
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    clip: float | None = 1.0
    guard: float | None = None
    z_loss: float = 0.0
    dtype: DType = "float32"
    recompute: bool = False
    compile: bool = False
    init: InitConfig = field(default_factory=InitConfig)
    lora: AdapterConfig | None = None
    preference: PreferenceConfig | None = None
    quantize: Literal["int4", "nf4"] | None = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] | None = None
    log_every: int = 1
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_words(self, "", "kind", "template", "too_long", "dtype", "quantize", "trackers")
        if not self.sources:
            raise ConfigError("sources: there is nothing to train on; name a folder of shards, or a file")
        check_counts(self, "", "seq_len", "batch_tokens", "step_tokens", "n_steps", "n_tokens", "log_every")
        _check_length(self)
        n_least = self.seq_len * (2 if self.kind == "dpo" else 1)
        if self.batch_tokens < n_least:
            what = "a pair of two answers" if self.kind == "dpo" else "an example"
            raise ConfigError(
                f"batch_tokens, {self.batch_tokens}, must hold at least {what} of seq_len, {self.seq_len}: give "
                f"{n_least} or more"
            )
        if self.preference is not None and self.kind != "dpo":
            raise ConfigError(f"preference is for a dpo run, this is a {self.kind} run")
        if self.kind == "dpo" and self.too_long == "split":
            raise ConfigError("too_long=split is for conversations; a pair of answers is whole, or left out (drop)")
        if self.step_tokens is not None and self.step_tokens % self.batch_tokens:
            raise ConfigError(
                f"step_tokens, {self.step_tokens}, must be a multiple of batch_tokens, {self.batch_tokens}"
            )
        for name in ("clip", "guard"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} must be above 0 or none, got {value!r}")
        if not 0 <= self.z_loss < math.inf:
            raise ConfigError(f"z_loss must be 0 or more, got {self.z_loss!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be a whole number from 0 to {2**32 - 1}, got {self.seed!r}")
        if self.kind != "pretrain" and isinstance(self.model, ModelConfig):
            raise ConfigError(f"a {self.kind} run begins with trained weights: model must say where they are")
        if self.quantize is not None and self.lora is None:
            raise ConfigError("quantize freezes the weights, so something must be trained beside them: give lora")
        if self.lora is not None and isinstance(self.model, ModelConfig):
            raise ConfigError("lora trains beside weights that are there: model must say where they are")
        weighted = [source.weight is not None for source in self.sources]
        if any(weighted) and not all(weighted):
            raise ConfigError("sources: give all of them a weight, or none")

    @property
    def n_batches(self) -> int:
        """The micro-batches of a step, in all processes together."""
        return 1 if self.step_tokens is None else self.step_tokens // self.batch_tokens


def forbidden_changes(old: Any, new: RunConfig) -> list[str]:
    """Sentences on what differs between the stored config of a run and a new one, and may not.

    >>> config = RunConfig(kind="pretrain", model="x", sources=(SourceConfig(path="y"),), seq_len=8, batch_tokens=8,
    ...                    n_steps=5)
    >>> forbidden_changes({**to_json(config), "seed": 1, "n_steps": 3}, config)
    ['seed was 1, now 0']
    """
    return [
        f"{name} was {before!r}, now {after!r}"
        for name, before, after in differences(old, to_json(new))
        if not any(name == free or name.startswith(f"{free}.") for free in FREE)
    ]


def _check_length(config: RunConfig) -> None:
    given: Sequence[str] = [name for name in ("n_steps", "n_epochs", "n_tokens") if getattr(config, name) is not None]
    if len(given) != 1:
        raise ConfigError(
            f"give one of n_steps, n_epochs and n_tokens, got {' and '.join(given) or 'none'}: how long is the run?"
        )
    if config.n_epochs is not None and not 0 < config.n_epochs < math.inf:
        raise ConfigError(f"n_epochs must be above 0, got {config.n_epochs!r}")


def _part(name: str, value: float, n_steps: int) -> int:
    """So many steps, of which a share may have been given."""
    if value < 0 or (value >= 1 and value != int(value)):
        raise ConfigError(f"schedule.{name} must be a share below 1 or a whole number of steps, got {value!r}")
    return int(value) if value >= 1 else round(value * n_steps)
