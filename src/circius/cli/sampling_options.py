"""How tokens are chosen: the options of the verbs that make answers."""

from typing import Annotated

import typer

from circius.base.errors import ParamsError

SAMPLING = "Sampling"

MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        metavar="N",
        help="Stop after N new tokens.",
        show_default="256, in a chat 512; less where the context ends",
        rich_help_panel=SAMPLING,
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        "--temperature",
        metavar="T",
        help="0 takes the likeliest token each time; higher is freer.",
        rich_help_panel=SAMPLING,
    ),
]
TopP = Annotated[
    float,
    typer.Option(
        "--top-p", metavar="P", help="Sample from the likeliest tokens that together have P.", rich_help_panel=SAMPLING
    ),
]
TopK = Annotated[
    int,
    typer.Option("--top-k", metavar="K", help="Sample from the K likeliest tokens; 0: all.", rich_help_panel=SAMPLING),
]
MinP = Annotated[
    float,
    typer.Option(
        "--min-p",
        metavar="P",
        help="Drop tokens less likely than P times the likeliest; 0: none.",
        rich_help_panel=SAMPLING,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        help="The same seed gives the same sample.",
        show_default="random",
        rich_help_panel=SAMPLING,
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="Stop before this text appears; repeatable.", rich_help_panel=SAMPLING),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option(
        "--repetition-penalty",
        metavar="X",
        help="Divide the logits of tokens seen so far by X; 1: off.",
        rich_help_panel=SAMPLING,
    ),
]
PresencePenalty = Annotated[
    float,
    typer.Option(
        "--presence-penalty",
        metavar="X",
        help="Subtract X from the logits of tokens generated so far.",
        rich_help_panel=SAMPLING,
    ),
]
FrequencyPenalty = Annotated[
    float,
    typer.Option(
        "--frequency-penalty",
        metavar="X",
        help="Subtract X for each time a token was generated.",
        rich_help_panel=SAMPLING,
    ),
]
LogitBias = Annotated[
    list[str] | None,
    typer.Option(
        "--logit-bias", metavar="ID=BIAS", help="Add BIAS to a token's logit; repeatable.", rich_help_panel=SAMPLING
    ),
]


def parse_logit_bias(entries: list[str] | None) -> dict[int, float] | None:
    """Token id to bias, of the entries `ID=BIAS` that `--logit-bias` was given; None for none.

    >>> parse_logit_bias(["42=-1.5"])
    {42: -1.5}

    Raises:
        ParamsError: an entry of another form.
    """
    if not entries:
        return None
    biases = {}
    for entry in entries:
        token_id, _, bias = entry.partition("=")
        try:
            biases[int(token_id)] = float(bias)
        except ValueError:
            raise ParamsError(f"--logit-bias must be ID=BIAS, for example 42=-100, got {entry!r}") from None
    return biases
