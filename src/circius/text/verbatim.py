"""Fixed ids inside a text that a byte-fallback vocabulary encodes as one.

Each run of fixed ids is replaced by a private-use character that the text does not contain. No piece contains it
either, so it comes out as its four bytes, and what is on its left does not merge with what is on its right; the four
byte ids are then exchanged for the fixed ids.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

Parts = Sequence[str | Sequence[int]]

_LAST_PRIVATE_USE, _FIRST_PRIVATE_USE = 0x10FFFD, 0x100000


def joined(parts: Parts) -> Parts:
    """The parts with neighbouring texts made one.

    >>> joined(["a", "b", [1], "c"])
    ['ab', [1], 'c']
    """
    result: list[str | Sequence[int]] = []
    for part in parts:
        if isinstance(part, str) and result and isinstance(result[-1], str):
            result[-1] += part
        else:
            result.append(part)
    return result


def with_placeholders(parts: Parts, is_free: Callable[[str], bool]) -> tuple[str, dict[str, tuple[int, ...]]]:
    """The text with a placeholder for each id part, and the ids that each placeholder stands for.

    `is_free(character)` says whether the vocabulary has no piece for that character.
    """
    written = "".join(part for part in parts if isinstance(part, str))
    fresh = (character for character in unused_characters(written) if is_free(character))
    marks: dict[tuple[int, ...], str] = {}
    for part in parts:
        if not isinstance(part, str) and tuple(part) not in marks:
            marks[tuple(part)] = next(fresh)
    text = "".join(part if isinstance(part, str) else marks[tuple(part)] for part in parts)
    return text, {mark: ids for ids, mark in marks.items()}


def unused_characters(text: str) -> Iterator[str]:
    """Private-use characters (four bytes each in UTF-8) that `text` does not contain.

    >>> next(unused_characters("abc")) == chr(0x10FFFD)
    True
    """
    for code in range(_LAST_PRIVATE_USE, _FIRST_PRIVATE_USE - 1, -1):
        if chr(code) not in text:
            yield chr(code)


def exchange(ids: Sequence[int], marks: Mapping[str, Sequence[int]], byte_ids: Sequence[int]) -> list[int]:
    """`ids` with the four byte ids of each placeholder exchanged for what it stands for.

    UTF-8 is self-synchronising, so those four bytes in a row are that character and nothing else.
    """
    spelt = {tuple(byte_ids[byte] for byte in mark.encode()): fixed for mark, fixed in marks.items()}
    lead = {spelling[0] for spelling in spelt}
    result: list[int] = []
    at = 0
    while at < len(ids):
        fixed = spelt.get(tuple(ids[at : at + 4])) if ids[at] in lead else None
        if fixed is None:
            result.append(ids[at])
            at += 1
        else:
            result.extend(fixed)
            at += 4
    return result
