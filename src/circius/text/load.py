"""Which file of a checkpoint holds the tokenizer, and reading it."""

from pathlib import Path

from circius.base.errors import TokenizerError
from circius.text.special_files import read_json, read_special_files
from circius.text.tokenizer import Tokenizer

_KINDS = "tokenizer.model, tokenizer.model.v1 to .v3, tokenizer.json or a .gguf file"


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a checkpoint folder, a tokenizer file or a `.gguf` file.

    In a folder with both a SentencePiece model and a tokenizer.json the former is taken: it is the original, and the
    two differ where the conversion is inexact. If tokenizer.json has tokens that the model lacks (as in models
    fine-tuned with new control tokens), tokenizer.json is taken.

    Raises:
        TokenizerError: there is no tokenizer, or several that contradict each other, or a damaged one.
    """
    if not path.exists():
        raise TokenizerError(f"{path}: no such file or folder; a tokenizer is {_KINDS}, or a folder with one of them")
    file = tokenizer_file(path)
    if file.suffix == ".gguf":
        from circius.text.gguf_vocab import load_gguf_tokenizer

        return load_gguf_tokenizer(file)
    if is_spm_name(file.name):
        return _sentencepiece(file)
    from circius.text.tokenizers_json import load_tokenizers_json

    return load_tokenizers_json(file)


def tokenizer_file(path: Path) -> Path:
    """The file that `load_tokenizer(path)` reads.

    Raises:
        TokenizerError: there is none, or several that contradict each other.
    """
    if path.is_file():
        if path.name.startswith("tekken") and path.suffix == ".json":
            raise TokenizerError(_not_tekken(path))
        if path.suffix == ".gguf" or path.suffix == ".json" or is_spm_name(path.name):
            return path
        raise TokenizerError(f"{path}: not a tokenizer file by its name; {_KINDS} are read")
    spm = _one_spm_file(path)
    backend = path / "tokenizer.json"
    if spm is not None:
        return backend if backend.is_file() and _adds_tokens(backend, spm) else spm
    if backend.is_file():
        return backend
    gguf = sorted(path.glob("*.gguf"))
    if len(gguf) == 1:
        return gguf[0]
    if (path / "tekken.json").is_file():
        raise TokenizerError(_not_tekken(path / "tekken.json"))
    raise TokenizerError(f"{path}: no tokenizer in this folder; add {_KINDS}, or name one with --tokenizer")


def is_spm_name(name: str) -> bool:
    """Whether a file is a SentencePiece model by its name.

    >>> is_spm_name("tokenizer.model"), is_spm_name("tokenizer.model.v3"), is_spm_name("tokenizer.json")
    (True, True, False)
    """
    stem, _, suffix = name.rpartition(".")
    return suffix == "model" or (stem.endswith(".model") and suffix.startswith("v"))


def _one_spm_file(folder: Path) -> Path | None:
    """The folder's SentencePiece model; of several equal ones, the one whose name tells the version."""
    found = sorted(file for file in folder.iterdir() if file.is_file() and is_spm_name(file.name))
    if len({file.read_bytes() for file in found}) > 1:
        raise TokenizerError(
            f"{folder}: {', '.join(file.name for file in found)} are different tokenizers; "
            "remove all but the one that belongs to the model, or name one with --tokenizer"
        )
    return found[-1] if found else None


def _adds_tokens(backend: Path, spm: Path) -> bool:
    """Whether tokenizer.json has ids that the SentencePiece model does not have."""
    from circius.text.spm_model import parse_spm

    added = read_json(backend).get("added_tokens") or []
    try:
        size = len(parse_spm(spm.read_bytes()).pieces)
    except TokenizerError as error:
        raise TokenizerError(f"{spm}: {error}; fetch the file again") from error
    return any(isinstance(token, dict) and token.get("id", 0) >= size for token in added)


def _sentencepiece(file: Path) -> Tokenizer:
    from circius.text.sentencepiece import load_sentencepiece

    folder = file.parent
    files = read_special_files(folder)
    added = read_json(folder / "added_tokens.json")
    tokenizer = load_sentencepiece(
        file,
        extra_eos_ids=files.eos_ids,
        adds_bos=files.adds_bos is not False,
        prefixes_every_part=files.legacy,
    )
    missing = [text for text, index in added.items() if isinstance(index, int) and index >= tokenizer.vocab_size]
    if missing:
        raise TokenizerError(
            f"{folder / 'added_tokens.json'}: {', '.join(map(repr, missing[:5]))} are not in {file.name}; the folder's "
            "tokenizer.json has them: add that file"
        )
    return tokenizer


def _not_tekken(path: Path) -> str:
    return f"{path}: a Tekken tokenizer belongs to later models than Mistral 7B; {_KINDS} are read"
