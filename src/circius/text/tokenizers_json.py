"""Hugging Face's `tokenizer.json`, run by their `tokenizers` library."""

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from circius.base.errors import PromptError, TokenizerError
from circius.text.byte_alphabet import BYTE_OF
from circius.text.special_files import read_special_files
from circius.text.tokenizer import Tokenizer, unused_piece
from circius.text.verbatim import Parts, exchange, unused_characters, with_placeholders

_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE_MARK = "▁"


class BackendTokenizer(Tokenizer):
    """A vocabulary in the `tokenizers` library: byte-level BPE, or SentencePiece's kind (`▁` and byte pieces).

    Cutting, normalising and prefix spaces are the file's own: where its rules lose something (a `Metaspace` rule takes
    a space that begins the text for its own prefix; an NFC rule composes accents), so does this class.

    The text of a control token stays text unless `special=True` asks for it: a second copy of the library's object
    does that, made when first needed.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        source: Path,
        bos_id: int | None,
        eos_ids: frozenset[int],
        adds_bos: bool,
        notes: tuple[str, ...] = (),
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self.backend = backend
        rules = json.loads(backend.to_str())
        decoders = _decoders(rules)
        self._is_byte_level = "ByteLevel" in {decoder["type"] for decoder in decoders}
        self.byte_errors = "replace" if self._is_byte_level else "surrogateescape"
        if not self._is_byte_level and not {"Metaspace", "ByteFallback"} & {d["type"] for d in decoders}:
            raise TokenizerError(
                f"a tokenizer of the kind {rules['model'].get('type')!r} with the decoder "
                f"{[decoder['type'] for decoder in decoders]} is not implemented; byte-level BPE and "
                "SentencePiece's kind are"
            )
        self._strips_prefix_space = any(map(_strips_space, decoders))
        added = backend.get_added_tokens_decoder()
        super().__init__(
            source=source,
            vocab_size=backend.get_vocab_size(with_added_tokens=True),
            special_ids={token.content: index for index, token in added.items() if token.special},
            unknown_id=_id_or_none(backend, rules["model"].get("unk_token")),
            bos_id=bos_id,
            eos_ids=eos_ids,
            adds_bos=adds_bos and bos_id is not None,
            notes=notes,
        )
        self._pieces = [backend.id_to_token(index) for index in range(self.vocab_size)]
        self._bytes = [b"" if piece is None else self._content(piece) for piece in self._pieces]

    def piece(self, token: int) -> str:
        piece = self._pieces[token] if self._check_id(token) else None
        return unused_piece(token) if piece is None else piece

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token] if self._check_id(token) and not self.is_special(token) else b""

    def id_of(self, piece: str) -> int | None:
        return _id_or_none(self.backend, piece)

    def opens_with_prefix_space(self, token: int) -> bool:
        return self._strips_prefix_space and self.piece(token).startswith(_SPACE_MARK)

    def _encode_parts(self, parts: Parts, *, special: bool) -> list[int]:
        for part in parts:
            if isinstance(part, str):
                self._refuse_unspellable(part)
        backend = self._matching if special else self.backend
        if self._is_byte_level:
            ids: list[int] = []
            for part in parts:
                ids.extend(_ids(backend, part) if isinstance(part, str) else part)
            return ids
        if not self._byte_ids:
            return [token for part in parts for token in (_ids(backend, part) if isinstance(part, str) else part)]
        text, marks = with_placeholders(parts, lambda character: self.id_of(character) is None)
        if _SPACE_MARK in text and not special:
            literal = next(unused_characters(text))
            marks[literal] = tuple(self._byte_ids[byte] for byte in _SPACE_MARK.encode())
            text = text.replace(_SPACE_MARK, literal)
        encoded = _ids(backend, text)
        return exchange(encoded, marks, self._byte_ids) if marks else encoded

    def _refuse_unspellable(self, text: str) -> None:
        """Refuses what the library would leave out without a word."""
        if not self._missing_bytes:
            return
        content = text.encode("utf-8")
        unspellable = self._missing_bytes.intersection(content)
        if unspellable:
            at = min(map(content.index, unspellable))
            raise PromptError(
                f"byte {at} of the text is 0x{content[at]:02X}, which the vocabulary of {self.source.name} cannot "
                "spell (a rare control character or a character outside the assigned Unicode planes): remove it"
            )

    @cached_property
    def _missing_bytes(self) -> frozenset[int]:
        if not self._is_byte_level:
            return frozenset()
        return frozenset(byte for character, byte in BYTE_OF.items() if self.id_of(character) is None)

    @cached_property
    def _byte_ids(self) -> list[int]:
        ids = [self.id_of(f"<0x{byte:02X}>") for byte in range(256)]
        return [] if None in ids else [index for index in ids if index is not None]

    @cached_property
    def _matching(self) -> tokenizers.Tokenizer:
        copy = tokenizers.Tokenizer.from_str(self.backend.to_str())
        copy.encode_special_tokens = False
        return copy

    def _content(self, piece: str) -> bytes:
        if self._is_byte_level:
            known = [BYTE_OF.get(character) for character in piece]
            # As the library does: an added token with a character outside the alphabet stands for itself.
            return piece.encode() if None in known else bytes(byte for byte in known if byte is not None)
        if _BYTE_PIECE.fullmatch(piece):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(_SPACE_MARK, " ").encode()


def load_tokenizers_json(path: Path) -> BackendTokenizer:
    """The tokenizer in a `tokenizer.json`, with BOS and EOS from the files beside it.

    Raises:
        TokenizerError: the file is damaged, or of a kind that is not implemented.
    """
    try:
        backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path}: cannot read the tokenizer: {error}") from error
    except Exception as error:  # the library raises a bare Exception
        raise TokenizerError(f"{path}: not a tokenizer.json, or damaged ({error}); fetch it again") from error
    files = read_special_files(path.parent)
    bos_id = _id_or_none(backend, files.bos)
    adds_bos = _starts_with(backend, bos_id) if files.adds_bos is None else files.adds_bos
    eos_ids = files.eos_ids_in(backend.token_to_id)
    try:
        return BackendTokenizer(backend, source=path, bos_id=bos_id, eos_ids=eos_ids, adds_bos=adds_bos)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from error


def _starts_with(backend: tokenizers.Tokenizer, bos_id: int | None) -> bool:
    """Whether the file's own post-processing puts BOS before a text."""
    return bos_id is not None and backend.encode("a", add_special_tokens=True).ids[:1] == [bos_id]


def _ids(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


def _id_or_none(backend: tokenizers.Tokenizer, piece: str | None) -> int | None:
    index: int | None = None if piece is None else backend.token_to_id(piece)
    return index


def _decoders(rules: dict[str, Any]) -> list[dict[str, Any]]:
    decoder = rules.get("decoder") or {"type": "none"}
    steps: list[dict[str, Any]] = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    return steps


def _strips_space(decoder: dict[str, Any]) -> bool:
    if decoder["type"] == "Strip":
        return bool(decoder.get("content") == " " and decoder.get("start", 0) > 0)
    return bool(decoder["type"] == "Metaspace" and decoder.get("prepend_scheme", "always") != "never")
