"""The tokenizer's part of a GGUF file's metadata."""

from collections.abc import Mapping
from pathlib import Path

from circius.base.errors import CheckpointError, TokenizerError
from circius.base.gguf_header import Value, read_gguf_header


def read_tokenizer_metadata(path: Path) -> Mapping[str, Value]:
    """The pairs whose key starts with `tokenizer.`: vocabulary, special tokens, chat template.

    Raises:
        TokenizerError: the file cannot be read, is no GGUF, or is damaged.
    """
    try:
        metadata = read_gguf_header(path).metadata
    except CheckpointError as error:
        raise TokenizerError(str(error)) from error
    return {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
