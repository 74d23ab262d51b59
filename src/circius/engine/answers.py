"""Answers with the decoders of their texts, and the names of tokens beside them."""

from functools import partial

from circius.engine.answer import Answer
from circius.engine.logprobs import NameToken
from circius.engine.request import Request
from circius.text import StreamDecoder, Tokenizer


def new_answer(request: Request, index: int, tokenizer: Tokenizer | None) -> Answer:
    """An answer that has not begun, with a decoder for its text if there is a tokenizer."""
    if tokenizer is None:
        return Answer(request, index, None)
    before = request.prompt_ids if request.continues_text else ()
    skip_special = request.params.skip_special_tokens
    return Answer(request, index, partial(StreamDecoder, tokenizer, before, skip_special=skip_special))


def token_namer(tokenizer: Tokenizer | None) -> NameToken | None:
    """The text of one token alone, for log-probabilities; control tokens by their piece."""
    if tokenizer is None:
        return None

    def name(token: int) -> str:
        if tokenizer.is_special(token):
            return tokenizer.piece(token)
        return tokenizer.token_bytes(token).decode("utf-8", errors="replace")

    return name
