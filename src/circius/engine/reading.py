"""Texts of any length as token ids, read and tokenised piece by piece. No torch here.

A text may be cut only where a token ends whatever stands around it. That is tested, not assumed: a place is taken if
the ids of the stretch before it, and those of the stretch with what follows, begin alike. Each piece is then encoded
behind the end of the piece before it, so that it is not mistaken for the beginning of a text, and the ids are those of
the whole text encoded at once, as far as the tokenizer looks no further than `_REACH` characters; SentencePiece and
byte-level BPE look as far as the word, or the run of the same character, that they are in.
"""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from circius.base.errors import PromptError
from circius.text import Tokenizer

PIECE_CHARS = 2**18
"""A text shorter than this is encoded at once."""
_REACH = 1024
_READ_BYTES = 2**16


class TextCounter:
    """The pieces of a text, handed on as they come, and their length in UTF-8 bytes so far."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self.n_bytes = 0
        self._pieces = pieces

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self.n_bytes += len(piece.encode("utf-8", errors="surrogatepass"))
            yield piece


def read_pieces(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file in pieces, every character as it stands, line ends too.

    Raises:
        PromptError: the file cannot be read, or is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    n_before = 0
    try:
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                n_kept = len(decoder.getstate()[0])
                yield decoder.decode(block)
                n_before += len(block)
        n_kept = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{path} is not UTF-8: byte {n_before - n_kept + error.start} is 0x{error.object[error.start]:02x}; "
            "convert it to UTF-8 first"
        ) from error


def stream_ids(tokenizer: Tokenizer, pieces: Iterable[str], *, piece_chars: int = PIECE_CHARS) -> Iterator[int]:
    """The ids of a text given in pieces, without BOS, holding about `piece_chars` characters at a time.

    Raises:
        PromptError: a text that the tokenizer cannot encode, or one that it gives no place to cut in.
    """
    before, text = "", ""
    for piece in pieces:
        text += piece
        if len(text) < piece_chars:
            continue
        cut = _place_to_cut(tokenizer, text)
        if cut is None:
            if len(text) >= 16 * piece_chars:
                raise PromptError(
                    f"no token ends anywhere near character {len(text)} of the text: it cannot be streamed"
                )
            continue
        yield from _ids_after(tokenizer, before, text[:cut])
        before, text = (before + text[:cut])[-_REACH:], text[cut:]
    yield from _ids_after(tokenizer, before, text)


def _place_to_cut(tokenizer: Tokenizer, text: str) -> int | None:
    """The last good place before the final `_REACH` characters: best after a line, else before a word, else any."""
    last = len(text) - _REACH
    first = max(1, last - _REACH)
    inside = range(last, first - 1, -1)
    line_ends = (place for place in inside if text[place - 1] == "\n" and not text[place].isspace())
    word_starts = (place for place in inside if text[place] == " " and not text[place - 1].isspace())
    for places in (line_ends, word_starts, inside):
        for place in places:
            before, after = text[max(0, place - _REACH) : place], text[place : place + _REACH]
            if _starts_alike(tokenizer, before, after):
                return place
    return None


def _starts_alike(tokenizer: Tokenizer, before: str, after: str) -> bool:
    alone = tokenizer.encode(before)
    return tokenizer.encode(before + after)[: len(alone)] == alone


def _ids_after(tokenizer: Tokenizer, before: str, text: str) -> list[int]:
    """The ids of `text` where it stands behind `before`."""
    if not text:
        return []
    known = tokenizer.encode(before) if before else []
    ids = tokenizer.encode(before + text)
    if ids[: len(known)] != known:
        raise PromptError(f"this tokenizer looks further back than {_REACH} characters: the text cannot be streamed")
    return ids[len(known) :]
