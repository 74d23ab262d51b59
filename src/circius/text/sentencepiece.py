"""SentencePiece vocabularies: Mistral's v1, v2 and v3, and the ones inside `llama`-type GGUF files."""

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import sentencepiece

from circius.base.errors import TokenizerError
from circius.text.spm_model import PieceType, SpmModel, parse_spm
from circius.text.tokenizer import Tokenizer, unused_piece
from circius.text.verbatim import Parts, exchange, unused_characters, with_placeholders

_SPACE_MARK = "▁"


class SentencePieceTokenizer(Tokenizer):
    """SentencePiece's own library, with two losses mended.

    A literal U+2581 (`▁`), which SentencePiece writes for a space, is encoded as its three bytes and so survives; and
    a control token's text is encoded as text unless it is asked for with `special=True`. Then the text is cut at the
    control tokens and each stretch between them is encoded by itself, prefix space included, as mistral-common does
    with the parts of a conversation (Hugging Face's `legacy` behaviour); with `prefixes_every_part` false only a
    stretch at the very start of the text gets the prefix space.
    """

    byte_errors = "surrogateescape"

    def __init__(
        self,
        model: SpmModel,
        *,
        source: Path,
        extra_eos_ids: Iterable[int] = (),
        adds_bos: bool = True,
        prefixes_every_part: bool = True,
    ) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model.serialise())
        except RuntimeError as error:
            raise TokenizerError(f"SentencePiece cannot use this model: {error}") from error
        self.model = model
        self._id_of = {piece: index for index, piece in enumerate(model.pieces)}
        self._prefixes_every_part = prefixes_every_part
        self._bytes = [self._content(index) for index in range(len(model.pieces))]
        control = {
            piece: index
            for index, (piece, kind) in enumerate(zip(model.pieces, model.types, strict=True))
            if kind == PieceType.CONTROL
        }
        super().__init__(
            source=source,
            vocab_size=len(model.pieces),
            special_ids=control,
            unknown_id=self._id_of.get(model.unk_piece),
            bos_id=control.get(model.bos_piece),
            eos_ids=frozenset({*([control[model.eos_piece]] if model.eos_piece in control else []), *extra_eos_ids}),
            adds_bos=adds_bos and model.bos_piece in control,
        )

    def piece(self, token: int) -> str:
        return self.model.pieces[token] if self._check_id(token) else unused_piece(token)

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token] if self._check_id(token) else b""

    def id_of(self, piece: str) -> int | None:
        return self._id_of.get(piece)

    def opens_with_prefix_space(self, token: int) -> bool:
        return self.model.add_dummy_prefix and self.model.pieces[token].startswith(_SPACE_MARK)

    def encode_raw(self, text: str) -> list[int]:
        """The library's own ids: a literal U+2581 becomes a space."""
        ids: list[int] = self._processor.encode(text)
        return ids

    def _encode_parts(self, parts: Parts, *, special: bool) -> list[int]:
        if not self._byte_ids and any(not isinstance(part, str) for part in parts):
            raise TokenizerError(f"{self.source}: a vocabulary without byte pieces cannot hold fixed ids in a text")
        text, marks = with_placeholders(parts, lambda character: character not in self._id_of)
        if not special:
            return self._encode_text(text, marks, continues=False)
        ids: list[int] = []
        for segment in self._control_pattern.split(text):
            if segment in self.special_ids:
                ids.append(self.special_ids[segment])
            elif segment:
                continues = bool(ids) and not self._prefixes_every_part
                ids.extend(self._encode_text(segment, marks, continues=continues))
        return ids

    def _encode_text(self, text: str, marks: dict[str, tuple[int, ...]], *, continues: bool) -> list[int]:
        """The ids of a stretch of text; without a prefix space if it continues what came before."""
        if not self._byte_ids:
            return self.encode_raw(text)
        fresh = (character for character in unused_characters(text) if character not in self._id_of)
        marks = dict(marks)
        if _SPACE_MARK in text:
            literal = next(fresh)
            marks[literal] = tuple(self._byte_ids[byte] for byte in _SPACE_MARK.encode())
            text = text.replace(_SPACE_MARK, literal)
        if continues and self.model.add_dummy_prefix:
            # A placeholder takes the prefix space; what follows it is encoded as in mid-sentence.
            stopper = next(fresh)
            return exchange(self.encode_raw(stopper + text)[len(self.encode_raw(stopper)) :], marks, self._byte_ids)
        ids = self.encode_raw(text)
        return exchange(ids, marks, self._byte_ids) if marks else ids

    @cached_property
    def _byte_ids(self) -> list[int]:
        """The ids of the 256 byte pieces, or nothing if the vocabulary lacks any of them."""
        ids = [self._id_of.get(f"<0x{byte:02X}>") for byte in range(256)]
        return [] if None in ids or not self.model.byte_fallback else [index for index in ids if index is not None]

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.special_ids, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)")

    def _content(self, index: int) -> bytes:
        piece, kind = self.model.pieces[index], self.model.types[index]
        if kind in (PieceType.CONTROL, PieceType.UNKNOWN):
            return b""
        if kind == PieceType.BYTE:
            return bytes([int(piece[3:5], 16)])
        return piece.replace(_SPACE_MARK, " ").encode() if self.model.escape_whitespaces else piece.encode()


def load_sentencepiece(
    path: Path,
    *,
    extra_eos_ids: Iterable[int] = (),
    adds_bos: bool = True,
    prefixes_every_part: bool = True,
) -> SentencePieceTokenizer:
    """The tokenizer in a `.model` file.

    Raises:
        TokenizerError: the file cannot be read, or is not a whole SentencePiece model.
    """
    try:
        return SentencePieceTokenizer(
            parse_spm(path.read_bytes()),
            source=path,
            extra_eos_ids=extra_eos_ids,
            adds_bos=adds_bos,
            prefixes_every_part=prefixes_every_part,
        )
    except OSError as error:
        raise TokenizerError(f"{path}: cannot read the tokenizer: {error.strerror}") from error
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}; fetch the file again") from error
