"""`circius dpo`: a model on pairs of answers of which one is preferred."""

from pathlib import Path
from typing import Annotated

import typer

from circius.cli import options, train_options
from circius.cli.training import Wishes
from circius.cli.tuning import Tuning, tune

NAME = "dpo"


def command(
    model: train_options.Model = None,
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DATA...",
            help="Files of preference pairs (jsonl, json, parquet).",
            show_default="the recipe's",
        ),
    ] = None,
    out: train_options.Out = None,
    lora: train_options.Lora = False,
    qlora: train_options.Qlora = None,
    rank: train_options.Rank = None,
    alpha: train_options.Alpha = None,
    epochs: train_options.Epochs = None,
    steps: train_options.Steps = None,
    lr: train_options.LearningRate = None,
    seq_len: train_options.SeqLen = None,
    too_long: train_options.TooLong = None,
    template: train_options.TemplateOption = None,
    recipe: train_options.Recipe = None,
    settings: train_options.Settings = None,
    restart: train_options.Restart = False,
    held_out: train_options.Evaluate = None,
    prompt: train_options.Prompt = None,
    dry_run: train_options.DryRun = False,
    probe: train_options.Probe = False,
    threads: options.Threads = None,
    device: options.DeviceOption = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model to prefer one answer over another (DPO), without a model of rewards.

    Each record has a prompt, a chosen and a rejected answer. What the model thinks of them before the first step is
    worked out once and kept in RUN; so there is no second model. RUN is as for `circius finetune`. Another loss (ipo,
    hinge) and its beta are settings: --set preference.kind=ipo --set preference.beta=0.1.
    """
    tuning = Tuning(
        kind="dpo",
        model=model,
        data=data or (),
        recipe=recipe,
        lora=lora,
        qlora=qlora,
        rank=rank,
        alpha=alpha,
        epochs=epochs,
        steps=steps,
        lr=lr,
        seq_len=seq_len,
        too_long=too_long,
        template=template,
        device=device,
        held_out=held_out,
        prompts=prompt,
        overrides=settings or (),
    )
    wishes = Wishes(
        out=out, restart=restart, dry_run=dry_run, probes=probe, threads=threads, as_json=as_json, quiet=quiet
    )
    tune(tuning, wishes)
