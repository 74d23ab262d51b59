"""The SentencePiece model file: the fields of its protobuf message that circius reads and writes.

The message is `sentencepiece_model.proto` of the SentencePiece project; a piece's type has the same number there and in
GGUF's `tokenizer.ggml.token_type`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from circius.base.errors import TokenizerError

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_BPE = 2
_ONE_BYTE = tuple(bytes([value]) for value in range(0x80))


class PieceType(IntEnum):
    """What a piece is; the numbers are SentencePiece's and GGUF's."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, kw_only=True)
class SpmModel:
    """A SentencePiece vocabulary and the rules for spaces; the position in the lists is the id."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]
    unk_piece: str = "<unk>"
    bos_piece: str = "<s>"
    eos_piece: str = "</s>"
    is_bpe: bool = True
    byte_fallback: bool = True
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = False
    escape_whitespaces: bool = True
    charsmap: bytes = b""
    """A compiled Unicode normalisation; empty for Mistral's models, which change no character."""

    def serialise(self) -> bytes:
        """The bytes of a `.model` file.

        >>> model = SpmModel(pieces=("<unk>",), scores=(0.0,), types=(2,))
        >>> parse_spm(model.serialise()) == model
        True
        """
        rows = zip(self.pieces, self.scores, self.types, strict=True)
        return b"".join(
            [*(_bytes(1, _piece(*row)) for row in rows), _bytes(2, self._trainer()), _bytes(3, self._spaces())]
        )

    def _trainer(self) -> bytes:
        return b"".join(
            [
                _int(3, _BPE if self.is_bpe else 1),
                _int(4, len(self.pieces)),
                _int(35, self.byte_fallback),
                _bytes(45, self.unk_piece.encode()),
                _bytes(46, self.bos_piece.encode()),
                _bytes(47, self.eos_piece.encode()),
            ]
        )

    def _spaces(self) -> bytes:
        charsmap = _bytes(2, self.charsmap) if self.charsmap else b""
        return b"".join(
            [
                _bytes(1, b"identity" if not self.charsmap else b"custom"),
                charsmap,
                _int(3, self.add_dummy_prefix),
                _int(4, self.remove_extra_whitespaces),
                _int(5, self.escape_whitespaces),
            ]
        )


def parse_spm(content: bytes) -> SpmModel:
    """The model in the bytes of a `.model` file.

    Raises:
        TokenizerError: they are not a SentencePiece model, or are cut short.
    """
    pieces: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    trainer: dict[int, int | bytes] = {}
    spaces: dict[int, int | bytes] = {}
    try:
        for number, value in _fields(content):
            if number == 1:
                row = dict(_fields(_as_bytes(value)))
                pieces.append(_as_bytes(row[1]).decode("utf-8"))
                scores.append(struct.unpack("<f", _as_bytes(row.get(2, bytes(4))))[0])
                types.append(PieceType(int(row.get(3, PieceType.NORMAL))))
            elif number == 2:
                trainer.update(_fields(_as_bytes(value)))
            elif number == 3:
                spaces.update(_fields(_as_bytes(value)))
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise TokenizerError(f"not a SentencePiece model, or damaged: {error}") from error
    if not (pieces and trainer and spaces):
        raise TokenizerError("not a SentencePiece model, or cut short: it must hold pieces, a trainer and a normaliser")
    return SpmModel(
        pieces=tuple(pieces),
        scores=tuple(scores),
        types=tuple(types),
        unk_piece=_as_bytes(trainer.get(45, b"<unk>")).decode(),
        bos_piece=_as_bytes(trainer.get(46, b"<s>")).decode(),
        eos_piece=_as_bytes(trainer.get(47, b"</s>")).decode(),
        is_bpe=trainer.get(3, 1) == _BPE,
        byte_fallback=bool(trainer.get(35, 0)),
        add_dummy_prefix=bool(spaces.get(3, 1)),
        remove_extra_whitespaces=bool(spaces.get(4, 1)),
        escape_whitespaces=bool(spaces.get(5, 1)),
        charsmap=_as_bytes(spaces.get(2, b"")),
    )


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and value of each field of a protobuf message."""
    at = 0
    while at < len(message):
        key = message[at]
        key, at = (key, at + 1) if key < 0x80 else _varint(message, at)  # nearly all are of one byte
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire_type == _LENGTH:
            size = message[at]
            size, at = (size, at + 1) if size < 0x80 else _varint(message, at)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {at}")
        if at + size > len(message):
            raise ValueError(f"a field of {size} bytes at byte {at} runs past the end ({len(message)} bytes)")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number at byte {at} is longer than 64 bits")


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError(f"a number ({value}) where text was expected")  # noqa: TRY004 - it means damaged, not misuse
    return value


def _piece(piece: str, score: float, kind: int) -> bytes:
    body = _bytes(1, piece.encode("utf-8")) + _key(2, _FIXED32) + struct.pack("<f", score)
    return body if kind == PieceType.NORMAL else body + _int(3, kind)


def _key(number: int, wire_type: int) -> bytes:
    return _number(number << 3 | wire_type)


def _int(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _number(value)


def _bytes(number: int, value: bytes) -> bytes:
    return _key(number, _LENGTH) + _number(len(value)) + value


def _number(value: int) -> bytes:
    """A non-negative number as a varint.

    >>> _number(300).hex()
    'ac02'
    """
    if value < 0x80:
        return _ONE_BYTE[value]
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
