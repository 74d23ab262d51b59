"""What every tokenizer offers, whatever file it was read from."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from circius.base.errors import PromptError, TokenizerError
from circius.text.detokenize import StreamDecoder
from circius.text.verbatim import Parts, joined


class Tokenizer(ABC):
    """Text to ids and back, without loss: `decode(encode(text)) == text`.

    Ids at or beyond `vocab_size` may come out of a model whose table is larger than its vocabulary: they decode to
    nothing, and their `piece` names them. A negative id is an error.
    """

    byte_errors: Literal["replace", "surrogateescape"]
    """How invalid UTF-8 is shown: one U+FFFD for a broken character, or one for each of its bytes."""

    def __init__(
        self,
        *,
        source: Path,
        vocab_size: int,
        special_ids: Mapping[str, int],
        unknown_id: int | None,
        bos_id: int | None,
        eos_ids: frozenset[int],
        adds_bos: bool,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.source = source
        """The file that the vocabulary was read from."""
        self.vocab_size = vocab_size
        self.special_ids = dict(special_ids)
        """The control tokens: their text and their id. Plain text never becomes one of these ids."""
        self.bos_id = bos_id
        self.eos_ids = eos_ids
        self.adds_bos = adds_bos
        """Whether a plain prompt starts with BOS."""
        self.notes = notes
        """What was chosen or assumed when the files were read, one sentence each."""
        self._control_ids = frozenset(special_ids.values())
        self._textless = frozenset({*special_ids.values(), *([] if unknown_id is None else [unknown_id])})

    def encode(self, text: str, *, bos: bool = False, special: bool = False) -> list[int]:
        """The ids of `text`.

        Control-token text such as `</s>` is ordinary text, unless `special` is true (only for a trusted template).

        Raises:
            PromptError: `text` holds half a surrogate pair, or a character that the vocabulary can't spell, or BOS is
                asked for and there is none.
        """
        return self.encode_parts([text], bos=bos, special=special)

    def encode_parts(self, parts: Parts, *, bos: bool = False, special: bool = False) -> list[int]:
        """The ids of a text that is given in parts, some of them already as ids.

        Text parts are encoded as if the id parts between them were one character that no piece contains.
        """
        if bos and self.bos_id is None:
            raise PromptError(f"this tokenizer has no BOS token ({self.source.name}): encode without bos=True")
        parts = joined(parts)
        for part in parts:
            if isinstance(part, str):
                refuse_surrogates(part)
        ids = self._encode_parts(parts, special=special)
        if not special and not self._control_ids.isdisjoint(ids):
            token = next(token for token in ids if token in self._control_ids)
            raise PromptError(f"the text spells the control token {self.piece(token)!r} (id {token}): remove it")
        return [self.bos_id, *ids] if bos and self.bos_id is not None else ids

    def encode_raw(self, text: str) -> list[int]:
        """The ids that the underlying library gives for `text`, where that differs from `encode`."""
        return self.encode(text)

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of `ids`. Control tokens are left out, or shown as their piece if `skip_special` is false."""
        stream = StreamDecoder(self, skip_special=skip_special)
        return stream.push(ids) + stream.flush()

    @abstractmethod
    def _encode_parts(self, parts: Parts, *, special: bool) -> list[int]: ...

    @abstractmethod
    def piece(self, token: int) -> str:
        """The vocabulary's own spelling of an id, such as `▁there` or `<0x0A>`."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The exact bytes that an id adds to the text; nothing for a control token."""

    @abstractmethod
    def id_of(self, piece: str) -> int | None:
        """The id whose piece is spelt exactly so, if there is one."""

    def is_special(self, token: int) -> bool:
        """Whether the id is a control token (or the unknown token, or beyond the vocabulary): no text of its own."""
        return token in self._textless or token >= self.vocab_size

    def opens_with_prefix_space(self, token: int) -> bool:
        """Whether `token`, at the very start of a text, begins with a space that encoding put there."""
        return False

    def _check_id(self, token: int) -> bool:
        """Whether the id lies inside the vocabulary.

        Raises:
            PromptError: it is negative.
        """
        if token < 0:
            raise PromptError(f"token id {token} is negative: ids run from 0 to {self.vocab_size - 1}")
        return token < self.vocab_size


def unused_piece(token: int) -> str:
    """What `piece` gives for an id beyond the vocabulary.

    >>> unused_piece(40000)
    '<unused:40000>'
    """
    return f"<unused:{token}>"


def refuse_surrogates(text: str) -> None:
    """Does nothing for a text that UTF-8 can hold.

    Raises:
        PromptError: half a surrogate pair, which comes from bytes that were not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise PromptError(
            f"character {error.start} of the text is U+{code:04X}, half a surrogate pair: the text was not valid "
            "UTF-8; decode it properly, or replace what cannot be decoded"
        ) from error


def check_vocab(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Does nothing if a model with `vocab_size` rows knows every id of `tokenizer`. Spare rows are fine.

    Raises:
        TokenizerError: the tokenizer has ids that the model's table does not have.
    """
    if tokenizer.vocab_size > vocab_size:
        raise TokenizerError(
            f"{tokenizer.source}: the tokenizer has {tokenizer.vocab_size} tokens, but the model's vocabulary has "
            f"{vocab_size}: they do not belong together; give the tokenizer that the model was trained with"
        )
