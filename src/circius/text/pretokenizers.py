"""How each kind of byte-level BPE cuts a text into words, by the names that GGUF files use.

The expressions are the ones that llama.cpp lists for `tokenizer.ggml.pre` (`llm_tokenizer_bpe` in llama-vocab.cpp),
in the form that the models' own tokenizer.json files give them.
"""

import json
from typing import Any

from tokenizers import Regex, pre_tokenizers

from circius.base.errors import TokenizerError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)

_GPT2_NAMES = ("gpt-2", "phi-2", "mpt", "olmo", "jais")
_SMOLLM_NAMES = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
_LLAMA3_NAMES = ("llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe")
_QWEN2_NAMES = ("qwen2", "stablelm2", "megrez")
KNOWN = ("default", *_GPT2_NAMES, *_SMOLLM_NAMES, *_LLAMA3_NAMES, *_QWEN2_NAMES, "tekken")
_WHOLE_WORDS_FIRST = ("llama-bpe", "llama3", "llama-v3", "tekken")


def pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
    """The rule that `tokenizer.ggml.pre` names.

    Raises:
        TokenizerError: the name is not one that circius has verified.
    """
    if name in _GPT2_NAMES:
        return _byte_level(use_regex=True)
    if name in _SMOLLM_NAMES:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _byte_level(use_regex=True)])
    if name == "default":
        steps = [r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]
        return pre_tokenizers.Sequence([*map(_split, steps), _byte_level(use_regex=False)])
    for names, expression in ((_LLAMA3_NAMES, _LLAMA3), (_QWEN2_NAMES, _QWEN2), (("tekken",), _TEKKEN)):
        if name in names:
            return pre_tokenizers.Sequence([_split(expression), _byte_level(use_regex=False)])
    raise TokenizerError(
        f"tokenizer.ggml.pre is {name!r}: circius does not know how this model cuts words, and a guess would give "
        f"other tokens than it was trained with; known are {', '.join(KNOWN)}"
    )


def takes_whole_words(name: str) -> bool:
    """Whether a word that is in the vocabulary is taken whole, without asking the merges."""
    return name in _WHOLE_WORDS_FIRST


def starts_with_bos(name: str) -> bool:
    """Whether llama.cpp puts BOS before a prompt when the file does not say."""
    return name in _WHOLE_WORDS_FIRST


def recognise(rules: dict[str, Any], *, whole_words: bool) -> str | None:
    """The GGUF name of a tokenizer.json's `pre_tokenizer`, or None if it is none that circius knows."""
    for name in ("smollm", "gpt-2", "llama-bpe", "tekken", "qwen2", "dbrx", "default"):
        mine = json.loads(pre_tokenizer(name).__getstate__())
        if takes_whole_words(name) == whole_words and _essence(mine) == _essence(rules):
            return name
    return None


def _essence(rules: Any) -> Any:
    """The rules without what changes offsets only, or is a default that older files leave out."""
    if isinstance(rules, list):
        return [_essence(rule) for rule in rules]
    if not isinstance(rules, dict):
        return rules
    defaults = {"use_regex": True, "add_prefix_space": True, "invert": False}
    kept = {key: _essence(value) for key, value in rules.items() if key != "trim_offsets"}
    return {key: value for key, value in kept.items() if key not in defaults or value != defaults[key]}


def _split(expression: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(expression), behavior="isolated")


def _byte_level(*, use_regex: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
