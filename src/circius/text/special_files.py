"""What the small JSON files beside a Hugging Face tokenizer say: BOS, EOS, and whether a prompt starts with BOS."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circius.base.errors import TokenizerError


@dataclass(frozen=True, kw_only=True)
class SpecialFiles:
    """The choices of a folder; `None` where no file says."""

    bos: str | None
    eos: str | None
    eos_ids: frozenset[int]
    """From generation_config.json, which may name several; else from config.json."""
    adds_bos: bool | None
    legacy: bool
    """Whether each stretch of text between control tokens gets a prefix space (Hugging Face's `legacy`)."""

    def eos_ids_in(self, id_of: Callable[[str], int | None]) -> frozenset[int]:
        """All end-of-sequence ids, given the vocabulary."""
        named = id_of(self.eos) if self.eos is not None else None
        return self.eos_ids if named is None else self.eos_ids | {named}


def read_special_files(folder: Path) -> SpecialFiles:
    """What tokenizer_config.json, special_tokens_map.json, generation_config.json and config.json say.

    Raises:
        TokenizerError: one of them is not JSON, or gives an end-of-sequence id that is not a number.
    """
    config = read_json(folder / "tokenizer_config.json")
    names = read_json(folder / "special_tokens_map.json")
    add_bos = config.get("add_bos_token")
    return SpecialFiles(
        bos=_token_text(config, "bos_token") or _token_text(names, "bos_token"),
        eos=_token_text(config, "eos_token") or _token_text(names, "eos_token"),
        eos_ids=_eos_ids(folder),
        adds_bos=add_bos if isinstance(add_bos, bool) else None,
        legacy=config.get("legacy") is not False,
    )


def token_texts(folder: Path) -> dict[str, str]:
    """The texts of `bos_token`, `eos_token`, `unk_token` and `pad_token` that the folder's files give."""
    config = read_json(folder / "tokenizer_config.json")
    names = read_json(folder / "special_tokens_map.json")
    found = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        text = _token_text(config, key) or _token_text(names, key)
        if text is not None:
            found[key] = text
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or an empty one if there is no such file.

    Raises:
        TokenizerError: the file is there but cannot be read, or holds no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{path}: holds a {type(content).__name__}, not a JSON object")
    return content


def _token_text(names: Mapping[str, Any], key: str) -> str | None:
    """The text of a token that is given either as text or as an object with a `content`."""
    value = names.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _eos_ids(folder: Path) -> frozenset[int]:
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id")
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids):
            raise TokenizerError(
                f"{folder / name}: eos_token_id is {value!r}; a token id or a list of them is expected"
            )
        return frozenset(ids)
    return frozenset()
