"""From the options of `finetune` and `dpo` to a configuration: a recipe's, or the defaults for a model and its data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from circius.base.errors import InvalidInputError
from circius.cli.loading import find_model
from circius.cli.options import Template
from circius.cli.output import Output
from circius.cli.train_options import RANK, Quantize
from circius.cli.training import Wishes, length_settings, run, with_data

if TYPE_CHECKING:
    from circius.model.adapter import AdapterConfig
    from circius.train.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What to tune, with what, and how; what is None is left to the recipe or to the defaults.

    overrides: settings by name, as they were typed; said last.
    """

    kind: Literal["finetune", "dpo"]
    model: str | None
    data: Sequence[Path]
    recipe: str | None
    lora: bool
    qlora: Quantize | None
    rank: int | None
    alpha: float | None
    epochs: float | None
    steps: int | None
    lr: float | None
    seq_len: int | None
    too_long: str | None
    template: Template | None
    device: str
    held_out: Sequence[Path] | None
    prompts: Sequence[str] | None
    overrides: Sequence[str]

    def config(self, output: Output) -> "RunConfig":
        """The configuration of the run.

        Raises:
            CirciusError: options that contradict each other, a model or a recipe that is not there, a value that a
                setting does not take.
        """
        from circius.train.recipe import with_settings

        if not (self.lora or self.qlora) and (self.rank is not None or self.alpha is not None):
            raise InvalidInputError(
                "--rank and --alpha are of an adapter: give --lora or --qlora too (of a recipe's own adapter, --set "
                "lora.rank=N)"
            )
        settings = {
            **length_settings(self.epochs, self.steps),
            "optimizer.lr": self.lr,
            "too_long": self.too_long,
            "template": None if self.template is None else self.template.value,
        }
        config = self._from_recipe(output) if self.recipe is not None else self._from_defaults(output)
        config = with_data(config, self.data, self.held_out)
        given = [f"{name}={value}" for name, value in settings.items() if value is not None]
        config = with_settings(config, [*given, *self.overrides])
        return config if not self.prompts else with_prompts(config, self.prompts)

    def _from_recipe(self, output: Output) -> "RunConfig":
        from circius.train.recipe import load_recipe, with_settings

        assert self.recipe is not None
        config = load_recipe(self.recipe)
        if config.kind != self.kind:
            raise InvalidInputError(f"the recipe {self.recipe} is for `circius {config.kind}`")
        if self.model is not None:
            config = replace(config, model=self.model)
        if isinstance(config.model, str):
            find_model(config.model, output)
        if self.lora or self.qlora:
            config = replace(config, lora=self._adapter(), quantize=self._bits())
        given = {"seq_len": self.seq_len, "device": None if self.device == "auto" else self.device}
        return with_settings(config, [f"{name}={value}" for name, value in given.items() if value is not None])

    def _from_defaults(self, output: Output) -> "RunConfig":
        if self.model is None:
            raise InvalidInputError("MODEL is missing: which model is to learn? Or name a --recipe")
        if not self.data:
            raise InvalidInputError("DATA are missing: what is it to learn from?")
        for path in self.data:
            if not path.exists():
                raise InvalidInputError(f"{path}: no such file or folder")
        find_model(self.model, output)
        from circius.train.defaults import tuning_config

        return tuning_config(
            self.kind,
            self.model,
            [str(path) for path in self.data],
            lora=self._adapter() if self.lora or self.qlora else None,
            quantize=self._bits(),
            seq_len=self.seq_len,
            device=self.device,
        )

    def _adapter(self) -> "AdapterConfig":
        from circius.model.adapter import AdapterConfig

        rank = RANK if self.rank is None else self.rank
        return AdapterConfig(rank=rank, alpha=2.0 * rank if self.alpha is None else self.alpha)

    def _bits(self) -> Literal["int4", "nf4"] | None:
        kinds: dict[Quantize | None, Literal["int4", "nf4"] | None] = {
            None: None,
            Quantize.INT4: "int4",
            Quantize.NF4: "nf4",
        }
        return kinds[self.qlora]


def tune(tuning: Tuning, wishes: Wishes) -> None:
    """Does what `finetune` or `dpo` was asked for."""
    output = wishes.output()
    wishes.check()
    run(tuning.config(output), wishes, output)


def with_prompts(config: "RunConfig", prompts: Iterable[str]) -> "RunConfig":
    """The configuration with other prompts for its samples."""
    return replace(config, samples=replace(config.samples, prompts=tuple(prompts)))
