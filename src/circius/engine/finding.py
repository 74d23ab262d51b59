"""What a checkpoint brings beside its weights: a tokenizer, a chat template."""

from pathlib import Path

from circius.base.errors import TemplateError
from circius.text import ChatTemplate, Tokenizer, load_chat_template
from circius.text.load import is_spm_name


def has_tokenizer(path: Path) -> bool:
    """Whether a checkpoint brings a tokenizer, of a kind that can be read or not."""
    if path.is_file():
        return True
    return any(
        file.name in ("tokenizer.json", "tekken.json") or file.suffix == ".gguf" or is_spm_name(file.name)
        for file in path.iterdir()
    )


def find_template(
    path: Path,
    tokenizer: Tokenizer,
    name: str,
    injection: str,
) -> tuple[ChatTemplate | None, str | None]:
    """The chat template, or none and why; a template that was asked for by name must be there."""
    try:
        return load_chat_template(path, tokenizer, name=name, injection=injection), None
    except TemplateError as error:
        if name != "auto":
            raise
        return None, str(error)
