"""The tokenizer inside a GGUF file: SentencePiece's (`llama`) or byte-level BPE (`gpt2`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from circius.base.errors import TokenizerError
from circius.base.gguf_header import Value
from circius.text.byte_alphabet import BYTE_OF
from circius.text.gguf_metadata import read_tokenizer_metadata
from circius.text.spm_model import PieceType, SpmModel
from circius.text.tokenizer import Tokenizer

_KEY = "tokenizer.ggml."


def load_gguf_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a `.gguf` file.

    Raises:
        TokenizerError: the file holds none, or one of a kind that is not implemented, or is damaged.
    """
    metadata = read_tokenizer_metadata(path)
    kind = metadata.get(f"{_KEY}model")
    try:
        if kind == "llama":
            return _sentencepiece(path, metadata)
        if kind == "gpt2":
            return _byte_level(path, metadata)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from error
    if kind is None:
        raise TokenizerError(f"{path}: the file holds no tokenizer (no {_KEY}model); give one separately")
    raise TokenizerError(
        f"{path}: {_KEY}model is {kind!r}; 'llama' (SentencePiece) and 'gpt2' (byte-level BPE) are read"
    )


def spm_model_of(metadata: Mapping[str, Value]) -> SpmModel:
    """The SentencePiece model that the `tokenizer.ggml.*` pairs describe, spaces by llama.cpp's rules.

    Raises:
        TokenizerError: an array is missing, or the arrays differ in length.
    """
    tokens = _array(metadata, "tokens")
    scores, types = _array(metadata, "scores"), [cast(int, kind) for kind in _array(metadata, "token_type")]
    if not len(tokens) == len(scores) == len(types):
        raise TokenizerError(
            f"{_KEY}tokens has {len(tokens)} entries, scores {len(scores)} and token_type {len(types)}: "
            "all three must match"
        )
    pieces = [str(token) or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
    unknown = _special_id(metadata, "unknown", len(pieces))
    if PieceType.UNKNOWN not in types:
        types[0 if unknown is None else unknown] = PieceType.UNKNOWN
    named = {}
    for name in ("bos", "eos"):
        index = _special_id(metadata, name, len(pieces))
        if index is not None:
            types[index] = PieceType.CONTROL
            named[f"{name}_piece"] = pieces[index]
    return SpmModel(
        pieces=tuple(pieces),
        scores=tuple(float(cast(float, score)) for score in scores),
        types=tuple(types),
        unk_piece=pieces[types.index(PieceType.UNKNOWN)],
        bos_piece=named.get("bos_piece", "<s>"),
        eos_piece=named.get("eos_piece", "</s>"),
        byte_fallback=PieceType.BYTE in types,
        add_dummy_prefix=bool(metadata.get(f"{_KEY}add_space_prefix", True)),
        remove_extra_whitespaces=bool(metadata.get(f"{_KEY}remove_extra_whitespaces", False)),
    )


def _sentencepiece(path: Path, metadata: Mapping[str, Value]) -> Tokenizer:
    from circius.text.sentencepiece import SentencePieceTokenizer

    model = spm_model_of(metadata)
    return SentencePieceTokenizer(
        model,
        source=path,
        extra_eos_ids=_eos_ids(metadata, len(model.pieces)),
        adds_bos=bool(metadata.get(f"{_KEY}add_bos_token", True)),
    )


def _byte_level(path: Path, metadata: Mapping[str, Value]) -> Tokenizer:
    import tokenizers

    from circius.text.pretokenizers import pre_tokenizer, starts_with_bos, takes_whole_words
    from circius.text.tokenizers_json import BackendTokenizer

    pre = str(metadata.get(f"{_KEY}pre", "default"))
    pieces = [str(token) for token in _array(metadata, "tokens")]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    if len(vocab) != len(pieces):
        twice = next(piece for index, piece in enumerate(pieces) if vocab[piece] != index)
        raise TokenizerError(f"{_KEY}tokens holds {twice!r} more than once")
    try:
        model = tokenizers.models.BPE(
            vocab=vocab, merges=_merges(metadata, vocab), ignore_merges=takes_whole_words(pre)
        )
    except Exception as error:  # the library raises a bare Exception
        raise TokenizerError(f"{_KEY}merges do not fit {_KEY}tokens: {error}") from error
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizer(pre)
    backend.decoder = tokenizers.decoders.ByteLevel()
    _add_tokens(backend, pieces, metadata)
    notes = () if f"{_KEY}pre" in metadata else (f"The file names no {_KEY}pre: llama.cpp's default was assumed.",)
    return BackendTokenizer(
        backend,
        source=path,
        bos_id=_special_id(metadata, "bos", len(pieces)),
        eos_ids=_eos_ids(metadata, len(pieces)),
        adds_bos=bool(metadata.get(f"{_KEY}add_bos_token", starts_with_bos(pre))),
        notes=notes,
    )


def _add_tokens(backend: "tokenizers.Tokenizer", pieces: list[str], metadata: Mapping[str, Value]) -> None:  # type: ignore[name-defined]  # noqa: F821
    from tokenizers import AddedToken

    types = [int(cast(int, kind)) for kind in _array(metadata, "token_type")]
    if len(types) != len(pieces):
        raise TokenizerError(f"{_KEY}tokens has {len(pieces)} entries and token_type {len(types)}: they must match")
    rows = list(zip(pieces, types, strict=True))
    control = [AddedToken(piece, normalized=False, special=True) for piece, kind in rows if kind == PieceType.CONTROL]
    users = [AddedToken(piece, normalized=False) for piece, kind in rows if kind == PieceType.USER_DEFINED]
    backend.add_special_tokens(control)
    backend.add_tokens(users)


def _merges(metadata: Mapping[str, Value], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """The merges; a vocabulary of bare bytes has none, and GGUF cannot hold an empty list."""
    if f"{_KEY}merges" not in metadata and set(BYTE_OF) <= set(vocab) and not any("Ġ" in p and p != "Ġ" for p in vocab):
        return []
    merges = []
    for merge in _array(metadata, "merges"):
        left, space, right = str(merge).partition(" ")
        if not space:
            raise TokenizerError(f"{_KEY}merges holds {merge!r}, which is not two pieces")
        merges.append((left, right))
    return merges


def _array(metadata: Mapping[str, Value], name: str) -> list[Value]:
    value = metadata.get(f"{_KEY}{name}")
    if not isinstance(value, list):
        raise TokenizerError(f"{_KEY}{name} is missing: the vocabulary is incomplete")
    return value


def _eos_ids(metadata: Mapping[str, Value], size: int) -> frozenset[int]:
    found = (_special_id(metadata, name, size) for name in ("eos", "eot", "eom"))
    return frozenset(index for index in found if index is not None)


def _special_id(metadata: Mapping[str, Value], name: str, size: int) -> int | None:
    value = metadata.get(f"{_KEY}{name}_token_id")
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < size:
        raise TokenizerError(f"{_KEY}{name}_token_id is {value}, but the vocabulary has {size} tokens")
    return value
