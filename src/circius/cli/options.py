"""The options that several verbs share, each defined once, so that they mean the same everywhere."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.errors import ParamsError

if TYPE_CHECKING:
    import torch

FLAG = ""
"""The value of an option that takes none, for the help."""

LOADING = "Model"
CHAT = "Chat template"
OUTPUT = "Output"


class DType(StrEnum):
    """The number format that the weights are held in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Activations(StrEnum):
    """How quantised weights take their inputs."""

    AUTO = "auto"
    INT8 = "int8"
    FLOAT = "float"


class KVBits(StrEnum):
    """The bits of a number in the cache of keys and values."""

    EIGHT = "8"
    SIXTEEN = "16"
    THIRTY_TWO = "32"


class StoredDType(StrEnum):
    """The number format that new weights are written in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Template(StrEnum):
    """Which chat template turns messages into tokens."""

    AUTO = "auto"
    V1 = "v1"
    V2 = "v2"
    V3 = "v3"
    MODEL = "model"


class Injection(StrEnum):
    """What happens to control text such as [INST] inside a message."""

    ESCAPE = "escape"
    STRICT = "strict"
    ALLOW = "allow"


class Layout(StrEnum):
    """The checkpoint layouts that circius writes."""

    HF = "hf"
    CONSOLIDATED = "consolidated"
    CONSOLIDATED_PTH = "consolidated-pth"
    GGUF = "gguf"


MODEL_HELP = "A checkpoint folder, a .gguf file, a Hub id, or an alias (`circius pull --list`)."

PresetOrModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=f"A preset (v0.1, v0.2, v0.3), or: {MODEL_HELP[0].lower()}{MODEL_HELP[1:]}",
        show_default=False,
    ),
]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]

Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", metavar="N", help="CPU threads.", show_default="as many as cores", rich_help_panel=LOADING
    ),
]
DTypeOption = Annotated[
    DType,
    typer.Option("--dtype", help="Number format of the weights; auto suits file and device.", rich_help_panel=LOADING),
]
ActivationsOption = Annotated[
    Activations,
    typer.Option(
        "--activations",
        help="What quantised weights are multiplied with: int8 is fast, float accurate; auto goes by the size.",
        rich_help_panel=LOADING,
    ),
]
KVBitsOption = Annotated[
    KVBits | None,
    typer.Option(
        "--kv-bits",
        help="Bits of a number in the cache of keys and values.",
        show_default="those of --dtype; 16 for quantised weights",
        rich_help_panel=LOADING,
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N|mps",
        help="Where to run; auto takes a GPU if there is one.",
        rich_help_panel=LOADING,
    ),
]
Speculate = Annotated[
    int | None,
    typer.Option(
        "--speculate",
        metavar="N",
        help="Guess up to N tokens ahead from what the text repeats; changes the speed only. 0: off.",
        show_default="8 for quantised weights on the CPU, else 0",
        rich_help_panel=LOADING,
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        metavar=FLAG,
        help="The same request gives the same answer, to the last bit, in any company; quantised weights on the CPU do "
        "so anyway, plain ones then read prompts more slowly.",
        rich_help_panel=LOADING,
    ),
]
Adapter = Annotated[
    Path | None,
    typer.Option(
        "--adapter",
        metavar="FOLDER",
        help="A LoRA adapter to add to the weights, in PEFT's form or Mistral's.",
        show_default="none",
        rich_help_panel=LOADING,
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        "--context",
        metavar="N",
        help="The most tokens, prompt and answer together.",
        show_default="the model's",
        rich_help_panel=LOADING,
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="N|none",
        help="Sliding window in tokens, itself included (a GGUF stores none).",
        show_default="the file's",
        rich_help_panel=LOADING,
    ),
]
RopeTheta = Annotated[
    float | None,
    typer.Option(
        "--rope-theta",
        metavar="X",
        help="Base of the rotary embedding.",
        show_default="the file's",
        rich_help_panel=LOADING,
    ),
]

TemplateOption = Annotated[
    Template, typer.Option("--template", help="The chat template; auto finds the model's.", rich_help_panel=CHAT)
]
InjectionOption = Annotated[
    Injection,
    typer.Option(
        "--injection",
        help="Control text such as [INST] in a message: encode it as plain text, refuse it, or let it through.",
        rich_help_panel=CHAT,
    ),
]
System = Annotated[
    str | None,
    typer.Option("--system", metavar="TEXT", help="The system prompt.", show_default="none", rich_help_panel=CHAT),
]
Guard = Annotated[
    bool,
    typer.Option(
        "--guard",
        metavar=FLAG,
        help="Put the paper's guard prompt before the conversation, and before --system.",
        rich_help_panel=CHAT,
    ),
]

Json = Annotated[
    bool, typer.Option("--json", metavar=FLAG, help="Print one JSON object and nothing else.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", metavar=FLAG, help="No notes, no progress, no statistics.", rich_help_panel=OUTPUT),
]
Quantization = Annotated[
    str | None,
    typer.Option("--quantization", metavar="TYPE", help="For GGUF: a block format such as Q8_0.", show_default="none"),
]
Force = Annotated[bool, typer.Option("--force", metavar=FLAG, help="Replace what is already at the target.")]
TextFile = Annotated[
    Path | None, typer.Option("--file", metavar="F", help="Read the text from F (UTF-8).", show_default=False)
]


def parse_window(text: str) -> int | None:
    """The window that `--window` names: a positive number of tokens, or None for full attention.

    >>> parse_window("4096"), parse_window("none")
    (4096, None)

    Raises:
        ParamsError: anything else.
    """
    if text.lower() == "none":
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise ParamsError(f"--window must be a positive whole number of tokens or 'none', got {text!r}")


def overrides(window: str | None, rope_theta: float | None) -> dict[str, Any]:
    """What the options say instead of the file, as keyword arguments: what they do not mention is not in it.

    >>> overrides("none", None)
    {'window': None}

    Raises:
        ParamsError: the window is not one.
    """
    given: dict[str, Any] = {}
    if window is not None:
        given["window"] = parse_window(window)
    if rope_theta is not None:
        given["rope_theta"] = rope_theta
    return given


def torch_dtype(dtype: DType | StoredDType) -> "torch.dtype":
    """torch's type of that name, which is not auto."""
    import torch

    found: torch.dtype = getattr(torch, dtype.value)
    return found
