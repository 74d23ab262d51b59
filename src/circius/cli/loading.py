"""From the options of a verb to a model that is ready to run, every choice made on the way reported."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from circius.base.errors import InvalidInputError, ModelNotFoundError
from circius.cli.options import Activations, DType, Injection, KVBits, Template, overrides
from circius.cli.output import Output
from circius.cli.progress import progress
from circius.cli.pull import fetch

if TYPE_CHECKING:
    from circius import LLM

DEMO = "demo"
"""The alias of the small model that a newcomer gets; the only one that is downloaded without being asked for."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model to run, and how."""

    model: str
    dtype: DType = DType.AUTO
    device: str = "auto"
    activations: Activations = Activations.AUTO
    kv_bits: KVBits | None = None
    speculate: int | None = None
    deterministic: bool = False
    context: int | None = None
    window: str | None = None
    rope_theta: float | None = None
    threads: int | None = None
    template: Template = Template.AUTO
    injection: Injection = Injection.ESCAPE
    adapter: Path | None = None


def refuse_loading(options: ModelOptions) -> None:
    """Does nothing unless an option says how to load a model that is behind an --endpoint, and so is not loaded.

    Raises:
        InvalidInputError: one does; the message names it.
    """
    for own in fields(options):
        if own.name != "model" and getattr(options, own.name) != own.default:
            raise InvalidInputError(
                f"--{own.name.replace('_', '-')} is for a model in this process, and {options.model} is behind "
                "--endpoint: leave it out"
            )


def find_model(name: str, output: Output) -> Path:
    """Where the model `name` is: a folder, a .gguf file, or a model that was pulled. Fetches only the demo model.

    Raises:
        ModelNotFoundError: there is no such model; it says what to do.
    """
    from circius.weights.hub import resolve

    try:
        return resolve(name)
    except ModelNotFoundError:
        if name != DEMO:
            raise
    output.dim(f"the {DEMO} model is not here yet: pulling it")
    return fetch(name, output)


def find_tokenizer(name: str, output: Output) -> Path:
    """Where the tokenizer `name` is: a tokenizer file itself, or the model that has it.

    Raises:
        ModelNotFoundError: there is neither; it says what to do.
    """
    return Path(name) if Path(name).is_file() else find_model(name, output)


def open_llm(options: ModelOptions, output: Output) -> "LLM":
    """The model, its tokenizer and its chat template, loaded with a progress bar."""
    replaced = overrides(options.window, options.rope_theta)
    path = find_model(options.model, output)
    with progress(f"loading {path.name}", output, unit="bytes") as on_progress:
        from circius import LLM  # takes a second or two, so the bar is there for it too

        llm = LLM(
            path,
            dtype=options.dtype.value,
            device=options.device,
            activations=options.activations.value,
            kv_bits=None if options.kv_bits is None else int(options.kv_bits.value),
            speculate=options.speculate,
            deterministic=options.deterministic,
            context=options.context,
            threads=options.threads,
            chat_template=options.template.value,
            injection=options.injection.value,
            adapter=options.adapter,
            on_progress=on_progress,
            **replaced,
        )
    for sentence in llm.notes:
        output.note(sentence)
    return llm
