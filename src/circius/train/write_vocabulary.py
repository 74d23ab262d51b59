"""A trained vocabulary as a folder that circius, transformers, mistral-common and SentencePiece read."""

import json
from pathlib import Path
from typing import Any

from circius.text.mistral_jinja import ChatStyle, jinja_of
from circius.text.spm_model import parse_spm
from circius.text.spm_to_json import tokenizer_json
from circius.weights.target import new_folder


def write_vocabulary(model: bytes, target: Path, *, chat: ChatStyle = "none", overwrite: bool = False) -> None:
    """Writes `tokenizer.model`, `tokenizer.json` and `tokenizer_config.json`, with a chat template unless it is "none".

    circius and mistral-common read the first, transformers the other two. For v3 there is a second copy of the model,
    whose name ends with the version, as mistral-common wants it.

    Raises:
        StorageError: `target` is in the way, or cannot be written.
    """
    with new_folder(target, n_bytes=2 * len(model), overwrite=overwrite) as folder:
        (folder / "tokenizer.model").write_bytes(model)
        if chat == "v3":
            (folder / "tokenizer.model.v3").write_bytes(model)
        (folder / "tokenizer.json").write_text(tokenizer_json(parse_spm(model)), encoding="utf-8")
        text = json.dumps(tokenizer_config(chat), ensure_ascii=False, indent=2)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def tokenizer_config(chat: ChatStyle) -> dict[str, Any]:
    """What transformers is to know: take tokenizer.json as it stands, BOS in front."""
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": True,
        "clean_up_tokenization_spaces": False,
    }
    return config if chat == "none" else {**config, "chat_template": jinja_of(chat)}
