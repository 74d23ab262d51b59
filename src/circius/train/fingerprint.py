"""A short name for what a tokenizer does, the same for every file that holds the same tokenizer."""

import hashlib
import json

from circius.base.errors import CirciusError, TokenizerError
from circius.text.tokenizer import Tokenizer

_PROBES = (
    "The mistral blew for three days; then it stopped.",
    " leading and trailing  spaces \t\n\n\n    indented",
    "1234567890 3.14159 -7 0x1F 10,000",
    "l'été naïve straße ГОСТ 東京 한국어 العربية हिन्दी",
    "🦜🏳️‍🌈 ▁ \u00a0\u200b\u0301",
    "def f(x): return {'a': [x ** 2, \"b\\n\"]} // <tag/> &amp; https://example.org/?q=1#top",
    "[INST] <s> </s> <|im_start|> CamelCase snake_case ALLCAPS don't can't I'LL",
)


def fingerprint(tokenizer: Tokenizer) -> str:
    """64 hexadecimal digits: the pieces in their order, the control tokens, and the ids of a few hard texts.

    Two files of one tokenizer (`tokenizer.model`, and the GGUF made of it) have the same; a vocabulary with one other
    piece, or another way of cutting words, has not.
    """
    digest = hashlib.sha256()
    for token in range(tokenizer.vocab_size):
        piece = tokenizer.piece(token).encode("utf-8", "surrogatepass")
        digest.update(len(piece).to_bytes(4, "little") + piece + tokenizer.token_bytes(token) + b"\0")
    digest.update(json.dumps(sorted(tokenizer.special_ids.items())).encode())
    for probe in _PROBES:
        digest.update(json.dumps(_ids(tokenizer, probe)).encode())
    return digest.hexdigest()


def end_id(tokenizer: Tokenizer) -> int:
    """The id that ends a text: `</s>`, or the first of those that end one.

    Raises:
        TokenizerError: the tokenizer names none.
    """
    named = tokenizer.id_of("</s>")
    if named is not None and named in tokenizer.eos_ids:
        return named
    if not tokenizer.eos_ids:
        raise TokenizerError(
            f"{tokenizer.source} names no end-of-sequence token, so a model would never learn to stop: name one as "
            "eos_token in tokenizer_config.json"
        )
    return min(tokenizer.eos_ids)


def begin_id(tokenizer: Tokenizer) -> int | None:
    """The id that begins a text, if prompts begin with one."""
    return tokenizer.bos_id if tokenizer.adds_bos else None


def _ids(tokenizer: Tokenizer, probe: str) -> list[int] | None:
    try:
        return tokenizer.encode(probe)
    except CirciusError:  # a vocabulary that cannot spell it, which tells it from one that can
        return None
