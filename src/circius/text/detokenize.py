"""Ids to text as they arrive: the joined pieces equal the whole decode, however the ids are split."""

import codecs
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circius.text.tokenizer import Tokenizer

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


class StreamDecoder:
    """Text from ids, as soon as it is certain; a character's bytes are held back until it is whole.

    The cost of a token does not depend on how many came before.

    `prompt_ids` is what the text continues: `decode(prompt) + text == decode(prompt + ids)`, so a space between the
    two is kept. Leave it empty for a text that stands alone, such as a chat answer, whose first space is the one that
    encoding put there.
    """

    def __init__(self, tokenizer: "Tokenizer", prompt_ids: Sequence[int] = (), *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._at_start = True
        self._decoder = codecs.getincrementaldecoder("utf-8")(tokenizer.byte_errors)
        self.push(prompt_ids)

    def push(self, ids: Iterable[int]) -> str:
        """The text that `ids` make certain; empty while a character is incomplete."""
        return "".join([self._text_of(token) for token in ids])

    def flush(self) -> str:
        """The rest: U+FFFD if the text ends inside a character, otherwise nothing."""
        return _show(self._decoder.decode(b"", final=True))

    def _text_of(self, token: int) -> str:
        if self._tokenizer.is_special(token):
            return self._special_text(token)
        content = self._tokenizer.token_bytes(token)
        if self._at_start and content:
            self._at_start = False
            if self._tokenizer.opens_with_prefix_space(token):
                content = content[1:]
        return _show(self._decoder.decode(content))

    def _special_text(self, token: int) -> str:
        broken = self.flush()
        self._decoder.reset()
        if self._skip_special:
            self._tokenizer.piece(token)  # refuses a negative id
            return broken
        self._at_start = False
        return broken + self._tokenizer.piece(token)


def _show(text: str) -> str:
    """The text with one U+FFFD for each byte that was escaped as no part of a character."""
    return _ESCAPED_BYTE.sub("\ufffd", text)
