"""Writing a model's tokenizer beside converted weights: into a folder, or into the metadata of a GGUF file."""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from circius.base.errors import StorageError, TokenizerError
from circius.text.byte_alphabet import CHARACTER_OF
from circius.text.gguf_metadata import read_tokenizer_metadata
from circius.text.gguf_vocab import spm_model_of
from circius.text.load import is_spm_name, load_tokenizer, tokenizer_file
from circius.text.spm_model import PieceType, SpmModel, parse_spm
from circius.text.template_choice import find_template
from circius.text.tokenizer import Tokenizer

_BESIDE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
_KEY = "tokenizer.ggml."


def export_tokenizer(source: Path, target_dir: Path) -> None:
    """Writes the tokenizer and chat template of `source` into the folder `target_dir`.

    `source` is a folder or a tokenizer file, whose files are copied, or a `.gguf`, whose tokenizer is written as
    `tokenizer.model` or `tokenizer.json` with a `tokenizer_config.json`, for circius and for transformers.

    Raises:
        TokenizerError: `source` has no tokenizer that circius can read.
        StorageError: a file cannot be written.
    """
    tokenizer = load_tokenizer(source)
    _make_folder(target_dir)
    if tokenizer.source.suffix == ".gguf":
        _export_gguf(tokenizer, target_dir)
        return
    folder = source if source.is_dir() else source.parent
    spm = [file for file in folder.iterdir() if is_spm_name(file.name)] if source.is_dir() else [source]
    for file in [*spm, *(folder / name for name in _BESIDE)]:
        if file.is_file():
            _write(target_dir / file.name, file.read_bytes())


def gguf_fields(source: Path) -> dict[str, object]:
    """The `tokenizer.*` pairs to embed in a GGUF file, for the tokenizer of a folder, a tokenizer file or a `.gguf`.

    Raises:
        TokenizerError: GGUF cannot express this tokenizer exactly.
    """
    file = tokenizer_file(source)
    if file.suffix == ".gguf":
        return dict(read_tokenizer_metadata(file))
    tokenizer = load_tokenizer(source)
    if is_spm_name(file.name):
        fields = _spm_fields(file, parse_spm(file.read_bytes()))
    else:
        fields = _byte_level_fields(tokenizer)
    named = {"bos": tokenizer.bos_id, "eos": _main_eos(tokenizer)}
    fields |= {f"{_KEY}{name}_token_id": index for name, index in named.items() if index is not None}
    fields[f"{_KEY}add_bos_token"] = tokenizer.adds_bos
    fields[f"{_KEY}add_eos_token"] = False
    template = find_template(source)
    return fields if template is None else {**fields, "tokenizer.chat_template": template}


def write_byte_tokenizer(target_dir: Path) -> None:
    """Writes a tokenizer of the 256 bytes, for random checkpoints: 0 <unk>, 1 <s>, 2 </s>, 3 + byte.

    The ids are Mistral v1's first 259. `tokenizer.model` is for circius, `tokenizer.json` for transformers.

    Raises:
        StorageError: a file cannot be written.
    """
    import tokenizers

    _make_folder(target_dir)
    model = byte_model()
    vocab = {piece: index for index, piece in enumerate(model.pieces)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    backend.decoder = tokenizers.decoders.Sequence([tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()])
    backend.add_special_tokens(list(model.pieces[:3]))
    _write(target_dir / "tokenizer.model", model.serialise())
    _write(target_dir / "tokenizer.json", backend.to_str().encode())
    _write_json(
        target_dir / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "add_bos_token": True,
            "clean_up_tokenization_spaces": False,
        },
    )


def byte_model() -> SpmModel:
    """The SentencePiece model with nothing but `<unk>`, `<s>`, `</s>` and the bytes."""
    pieces = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
    kinds = (PieceType.UNKNOWN, PieceType.CONTROL, PieceType.CONTROL, *[PieceType.BYTE] * 256)
    return SpmModel(
        pieces=pieces,
        scores=(0.0,) * len(pieces),
        types=kinds,
        add_dummy_prefix=False,
        escape_whitespaces=False,
    )


def _export_gguf(tokenizer: Tokenizer, target: Path) -> None:
    metadata = read_tokenizer_metadata(tokenizer.source)
    config: dict[str, Any] = {"add_bos_token": tokenizer.adds_bos, "add_eos_token": False}
    main = {"bos_token": tokenizer.bos_id, "eos_token": _main_eos(tokenizer)}
    config |= {name: tokenizer.piece(index) for name, index in main.items() if index is not None}
    if metadata[f"{_KEY}model"] == "llama":
        model = spm_model_of(metadata)
        config |= {"tokenizer_class": "LlamaTokenizer", "unk_token": model.unk_piece, "legacy": True}
        _write(target / "tokenizer.model", model.serialise())
    else:
        from circius.text.tokenizers_json import BackendTokenizer

        assert isinstance(tokenizer, BackendTokenizer)
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        _write(target / "tokenizer.json", tokenizer.backend.to_str().encode())
    template = metadata.get("tokenizer.chat_template")
    if template is not None:
        config["chat_template"] = template
    config["clean_up_tokenization_spaces"] = False
    _write_json(target / "tokenizer_config.json", config)
    if len(tokenizer.eos_ids) > 1:
        _write_json(target / "generation_config.json", {"eos_token_id": sorted(tokenizer.eos_ids)})


def _spm_fields(file: Path, model: SpmModel) -> dict[str, object]:
    if replace(model, is_bpe=True) == byte_model():
        return _byte_fields()
    if not model.is_bpe or model.charsmap or not model.escape_whitespaces:
        raise TokenizerError(
            f"{file}: a SentencePiece model of the unigram kind, or one that rewrites characters, cannot be embedded "
            "in a GGUF file exactly; convert to another format"
        )
    return {
        f"{_KEY}model": "llama",
        f"{_KEY}pre": "default",
        f"{_KEY}tokens": list(model.pieces),
        f"{_KEY}scores": list(model.scores),
        f"{_KEY}token_type": [int(kind) for kind in model.types],
        f"{_KEY}unknown_token_id": model.types.index(PieceType.UNKNOWN),
        f"{_KEY}add_space_prefix": model.add_dummy_prefix,
        f"{_KEY}remove_extra_whitespaces": model.remove_extra_whitespaces,
    }


def _byte_fields() -> dict[str, object]:
    """The byte tokenizer as byte-level BPE without merges: a `llama` vocabulary would spell a space as `▁`."""
    return {
        f"{_KEY}model": "gpt2",
        f"{_KEY}pre": "gpt-2",
        f"{_KEY}tokens": ["<unk>", "<s>", "</s>", *(CHARACTER_OF[byte] for byte in range(256))],
        f"{_KEY}token_type": [int(PieceType.CONTROL)] * 3 + [int(PieceType.NORMAL)] * 256,
        f"{_KEY}unknown_token_id": 0,
    }


def _byte_level_fields(tokenizer: Tokenizer) -> dict[str, object]:
    from circius.text.pretokenizers import recognise
    from circius.text.tokenizers_json import BackendTokenizer

    assert isinstance(tokenizer, BackendTokenizer)
    rules = json.loads(tokenizer.backend.to_str())
    model = rules["model"]
    pre = recognise(rules["pre_tokenizer"], whole_words=bool(model.get("ignore_merges")))
    if model["type"] != "BPE" or rules["normalizer"] is not None or pre is None:
        raise TokenizerError(
            f"{tokenizer.source}: GGUF names the way of cutting words, and this one (model {model['type']}, normaliser "
            f"{rules['normalizer'] and rules['normalizer']['type']}) has no name that circius knows; convert to "
            "another format"
        )
    users = {token["id"] for token in rules["added_tokens"] if not token["special"]}
    control = set(tokenizer.special_ids.values())
    kinds = {**dict.fromkeys(users, PieceType.USER_DEFINED), **dict.fromkeys(control, PieceType.CONTROL)}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    fields: dict[str, object] = {
        f"{_KEY}model": "gpt2",
        f"{_KEY}pre": pre,
        f"{_KEY}tokens": [tokenizer.piece(index) for index in range(tokenizer.vocab_size)],
        f"{_KEY}token_type": [int(kinds.get(index, PieceType.NORMAL)) for index in range(tokenizer.vocab_size)],
    }
    return {**fields, f"{_KEY}merges": merges} if merges else fields


def _main_eos(tokenizer: Tokenizer) -> int | None:
    """The EOS that a file with room for one names."""
    named = tokenizer.id_of("</s>")
    if named in tokenizer.eos_ids:
        return named
    return min(tokenizer.eos_ids, default=None)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot make the folder: {error.strerror}") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    """Writes the file under a temporary name beside its place, then renames it."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.chmod(0o644)
        os.replace(temporary, path)  # noqa: PTH105 - says what is meant
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot write the file: {error.strerror}") from error
