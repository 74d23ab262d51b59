"""The options that the training verbs share, each defined once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circius.cli import options

RUN, MODEL, WATCHING = "Run", "Adapter", "Watching"
RANK = 16


class Quantize(StrEnum):
    """In which 4 bits the weights beside an adapter are."""

    INT4 = "int4"
    NF4 = "nf4"


Model = Annotated[str | None, typer.Argument(metavar="MODEL", help=options.MODEL_HELP, show_default="the recipe's")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="RUN",
        help="The run's folder; one that was stopped goes on where it was.",
        show_default="not needed with --dry-run",
        rich_help_panel=RUN,
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="FILE|NAME",
        help="A Python file with `def config() -> RunConfig`, a run's folder, or the name of one in recipes/.",
        show_default="none",
        rich_help_panel=RUN,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any field of the configuration, such as optimizer.lr=1e-3 or lr=1e-3; repeatable, said last.",
        rich_help_panel=RUN,
    ),
]
Epochs = Annotated[
    float | None,
    typer.Option(
        "--epochs",
        metavar="X",
        help="How often all examples are seen.",
        show_default="the recipe's, else 3, of preferences 1",
        rich_help_panel=RUN,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="N",
        help="How many steps are taken; instead of --epochs.",
        show_default=False,
        rich_help_panel=RUN,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="X",
        help="The learning rate at its highest.",
        show_default="the recipe's, else 2e-4 for an adapter and 2e-5 for all weights, with preferences a fortieth",
        rich_help_panel=RUN,
    ),
]
SeqLen = Annotated[
    int | None,
    typer.Option(
        "--seq-len",
        metavar="N",
        help="The longest example, in tokens.",
        show_default="the recipe's, else 1024 or the model's context",
        rich_help_panel=RUN,
    ),
]
TooLong = Annotated[
    str | None,
    typer.Option(
        "--too-long",
        metavar="error|drop|split",
        help="What becomes of longer conversations.",
        show_default="the recipe's, else error",
        rich_help_panel=RUN,
    ),
]
Evaluate = Annotated[
    list[Path] | None,
    typer.Option(
        "--eval",
        metavar="DATA",
        help="Held-out data, to look at and not to train on; repeatable.",
        show_default="a twentieth of DATA; of shards what was held out",
        rich_help_panel=WATCHING,
    ),
]
Prompt = Annotated[
    list[str] | None,
    typer.Option("--prompt", metavar="TEXT", help="Show what the model says to this; repeatable.",
                 rich_help_panel=WATCHING),
]  # fmt: skip
Lora = Annotated[
    bool, typer.Option("--lora", metavar=options.FLAG, help="Train an adapter, not the weights.", rich_help_panel=MODEL)
]
Qlora = Annotated[
    Quantize | None,
    typer.Option(
        "--qlora",
        help="Train an adapter beside weights in 4 bits: our kernels' (of a quantised model those it has), or NF4.",
        show_default="no",
        rich_help_panel=MODEL,
    ),
]
Rank = Annotated[
    int | None,
    typer.Option(
        "--rank",
        metavar="N",
        help="The adapter's rank, with --lora or --qlora.",
        show_default=str(RANK),
        rich_help_panel=MODEL,
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha",
        metavar="X",
        help="Its scale times its rank.",
        show_default="twice the rank",
        rich_help_panel=MODEL,
    ),
]
TemplateOption = Annotated[
    options.Template | None,
    typer.Option(
        "--template",
        help="The chat template; auto finds the model's.",
        show_default="the recipe's, else auto",
        rich_help_panel=RUN,
    ),
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart", metavar=options.FLAG, help="Begin anew; what is in RUN is moved aside.", rich_help_panel=RUN
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", metavar=options.FLAG, help="Show what the run would take, and leave.", rich_help_panel=WATCHING
    ),
]
Probe = Annotated[
    bool,
    typer.Option(
        "--probe",
        metavar=options.FLAG,
        help="With --dry-run: read the weights and time a micro-batch, for an estimate of the time.",
        rich_help_panel=WATCHING,
    ),
]
