"""A tokenizer on its way into a checkpoint that is being written: files in a folder, or the metadata of a GGUF."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circius.cli.options import Layout

if TYPE_CHECKING:
    from circius.text import Tokenizer


def tokenizer_arguments(source: Path, layout: Layout, *, vocab_size: int) -> dict[str, Any]:
    """The arguments `extra` and `metadata` of `circius.weights`' writers that put the tokenizer of `source` in place.

    Raises:
        TokenizerError: there is none, the layout cannot hold it, or it has more tokens than the model.
    """
    from circius.text import check_vocab, export_tokenizer, gguf_fields, load_tokenizer

    tokenizer = load_tokenizer(source)
    check_vocab(tokenizer, vocab_size)
    if layout is Layout.GGUF:
        return {"metadata": gguf_fields(source)}
    extra = partial(export_tokenizer, source)
    return {"extra": extra, "metadata": _token_ids(tokenizer) if layout is Layout.HF else None}


def _token_ids(tokenizer: "Tokenizer") -> dict[str, object]:
    """What config.json says of the tokenizer's own control tokens."""
    eos_ids = sorted(tokenizer.eos_ids)
    ids: dict[str, object] = {}
    if tokenizer.bos_id is not None:
        ids["bos_token_id"] = tokenizer.bos_id
    if eos_ids:
        ids["eos_token_id"] = eos_ids[0] if len(eos_ids) == 1 else eos_ids
    return ids
