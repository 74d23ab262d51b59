"""`circius finetune`: a model on conversations, all of its weights or an adapter."""

from pathlib import Path
from typing import Annotated

import typer

from circius.cli import options, train_options
from circius.cli.training import Wishes
from circius.cli.tuning import Tuning, tune

NAME = "finetune"


def command(
    model: train_options.Model = None,
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DATA...",
            help="Files of conversations (jsonl, json, parquet), or folders of shards.",
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
    """Train a model to answer as in some conversations.

    Only what the assistant says is learnt, end included. The data are looked through before anything is loaded: what is
    wrong is told with its line, and `circius data check` tells all of it. RUN gets metrics, checkpoints, a report, and
    at the end RUN/model, or with --lora or --qlora RUN/adapter, for `circius chat --adapter` and `circius merge`. A run
    that was stopped, even by a kill, goes on by the same command.
    """
    tuning = Tuning(
        kind="finetune",
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
