"""`circius pretrain`: a model from random weights, or from weights that are there, on plain texts."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from circius.base.errors import InvalidInputError
from circius.cli import options, train_options
from circius.cli.training import Wishes, length_settings, run, with_data
from circius.cli.tuning import with_prompts

NAME = "pretrain"


def command(
    shards: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SHARDS...", help="Folders that `circius data prepare` made.",
                       show_default="the recipe's"),
    ] = None,
    out: train_options.Out = None,
    recipe: train_options.Recipe = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Go on with these weights instead of the recipe's.",
                     show_default="the recipe's", rich_help_panel=train_options.RUN),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", metavar="PATH", help="What the shards were made with.",
                     show_default="the recipe's, or the model's", rich_help_panel=train_options.RUN),
    ] = None,
    epochs: train_options.Epochs = None,
    steps: train_options.Steps = None,
    lr: train_options.LearningRate = None,
    seq_len: train_options.SeqLen = None,
    settings: train_options.Settings = None,
    restart: train_options.Restart = False,
    held_out: train_options.Evaluate = None,
    prompt: train_options.Prompt = None,
    dry_run: train_options.DryRun = False,
    probe: train_options.Probe = False,
    report_only: Annotated[
        bool,
        typer.Option("--report-only", metavar=options.FLAG, help="Write RUN/report.html anew, of any run, and leave.",
                     rich_help_panel=train_options.WATCHING),
    ] = False,
    threads: options.Threads = None,
    device: options.DeviceOption = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Train a model to go on with texts.

    The recipe says how large the model is and how it learns; `story` is a small one. RUN gets metrics, checkpoints, a
    report, and at the end RUN/model, a folder like any other model's. A run that was stopped, even by a kill, goes on
    by the same command. Several processes share it under `torchrun -m circius`.
    """
    wishes = Wishes(
        out=out, restart=restart, dry_run=dry_run, probes=probe, threads=threads, as_json=as_json, quiet=quiet
    )
    output = wishes.output()
    if report_only:
        if out is None:
            raise InvalidInputError("--report-only needs --out RUN: which run?")
        from circius.train.report import write_report

        output.line(str(write_report(out)))
        return
    wishes.check()
    if recipe is None:
        raise InvalidInputError(
            "--recipe is missing: it says how large the model is and how it learns; --recipe story is a small one"
        )
    from circius.train.recipe import load_recipe, with_settings

    config = load_recipe(recipe)
    if config.kind != "pretrain":
        raise InvalidInputError(f"the recipe {recipe} is for `circius {config.kind}`")
    if model is not None:
        config = replace(config, model=model, tokenizer=None)
    if tokenizer is not None:
        config = replace(config, tokenizer=str(tokenizer))
    config = with_data(config, shards or (), held_out)
    given = {**length_settings(epochs, steps), "optimizer.lr": lr, "seq_len": seq_len}
    own: list[str] = [f"{name}={value}" for name, value in given.items() if value is not None]
    own += [f"device={device}"] if device != "auto" else []
    config = with_settings(config, [*own, *(settings or ())])
    run(with_prompts(config, prompt) if prompt else config, wishes, output)
