"""Everything about a run that can be known before a weight is read; what is wrong is found here, and costs seconds."""

import os
from dataclasses import dataclass, replace
from typing import Any

from circius.base.errors import ConfigError
from circius.text import ChatTemplate
from circius.train.config import RunConfig
from circius.train.inputs import Inputs, open_inputs
from circius.train.length import Length, measure_length
from circius.train.metrics import check_trackers
from circius.train.pair_inputs import open_pair_inputs
from circius.train.parallel import check_split
from circius.train.plan import Plan, estimate
from circius.train.product import with_base
from circius.train.start_model import Start, open_start
from circius.train.world import World
from circius.weights.memory import available_bytes


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """template: of conversations; None where there are none. notes: what one should know, one sentence each."""

    config: RunConfig
    start: Start
    inputs: Inputs[Any]
    template: ChatTemplate | None
    length: Length
    plan: Plan
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What run.json says beside the configuration."""
        return {
            "n_parameters": self.plan.n_parameters,
            "n_trained": self.plan.n_trained,
            "n_steps": self.length.n_steps,
            "n_epochs": self.length.n_epochs,
            "tokens_per_step": self.length.tokens_per_step,
            "memory_plan": dict(self.plan.memory),
            "sources": [counts.record() for counts in self.inputs.counts],
            "notes": list(self.notes),
        }


def prepare(config: RunConfig, world: World) -> Prepared:
    """Opens the model's headers and all data, and checks that they fit each other and the machine.

    Raises:
        CirciusError: a child of it that says what is wrong, and what to do.
    """
    check_parallel(config, world)
    check_trackers(config.trackers)
    config = with_base(config)
    start = open_start(config)
    check_split(start.shape.n_kv_heads, start.shape.hidden_dim, world.n_tensor)
    templates: list[ChatTemplate] = []

    def find_template() -> ChatTemplate:
        if not templates:
            templates.append(start.template(config.template))
        return templates[0]

    inputs: Inputs[Any]
    if config.kind == "dpo":
        inputs = open_pair_inputs(config, find_template)
    else:
        inputs = open_inputs(config, start.tokenizer, find_template)
    if config.kind != "pretrain" and config.samples.prompts:
        find_template()  # what a user says is told in it, whatever is learnt
    template = templates[0] if templates else None
    _check_evaluation(config, inputs)
    plan = estimate(inputs, config, shape=start.shape, n_data=world.n_data, device=world.device.type)
    plan.check(_free_bytes(world), config)  # before batches are counted, which with endless ones would never end
    length = measure_length(config, inputs.new_stream(), inputs.mean_tokens)
    config.schedule.over(length.n_steps)  # says now what is wrong with it
    plan = replace(plan, n_steps=length.n_steps, n_epochs=length.n_epochs, tokens_per_step=length.tokens_per_step)
    notes = (*start.notes, *(template.notes if template is not None else ()), *inputs.notes, *plan.notes)
    return Prepared(config=config, start=start, inputs=inputs, template=template, length=length, plan=plan, notes=notes)


def check_parallel(config: RunConfig, world: World) -> None:
    """Does nothing for a run that these processes can share.

    Raises:
        ConfigError: they cannot.
    """
    if config.n_batches % world.n_data:
        raise ConfigError(
            f"a step has {config.n_batches} micro-batches (step_tokens / batch_tokens), which {world.n_data} processes "
            "cannot share out evenly: make step_tokens a multiple of batch_tokens times the processes"
        )
    spreads = config.parallel.tensor > 1 or (config.parallel.sharing == "shards" and world.n_data > 1)
    if spreads and config.lora is not None:
        raise ConfigError(
            "an adapter is small, and the weights beside it are frozen: every process keeps all of them; set "
            "parallel.sharing=copies and parallel.tensor=1"
        )
    if spreads and config.optimizer.kind != "adamw":
        raise ConfigError(
            f"{config.optimizer.kind} needs whole matrices in every process: set parallel.sharing=copies and "
            "parallel.tensor=1, or optimizer.kind=adamw"
        )


def _check_evaluation(config: RunConfig, inputs: Inputs[Any]) -> None:
    if inputs.held_out:
        return
    for name, wants in (
        ("evaluation.patience", config.evaluation.patience is not None),
        ("checkpoints.keep_best", config.checkpoints.keep_best),
    ):
        if wants:
            raise ConfigError(
                f"{name} needs something that is not trained on: name evaluation.sources, keep a part of the data "
                "(evaluation.share=0.05), or prepare shards with --holdout"
            )


def _free_bytes(world: World) -> int:
    """What one process of this machine may take."""
    free = available_bytes(world.device)
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world.size > 1 else 1
    return free // on_this_machine if world.device.type == "cpu" else free
