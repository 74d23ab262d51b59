"""Books as the small `story` model reads them: plain prose without headings, quotation marks and dashes made plain.

    python recipes/story_texts.py children.jsonl.gz --hardest 6.45 --out texts.jsonl

takes files of JSON lines with a text each (and author and title, by which a book in two files is taken once), and
writes one `{"text": ...}` a line, of each file the easiest first, up to `--most-bytes` in all. A model of a few million
parameters gains more from reading plain prose several times than from more books.
"""

import argparse
import gzip
import json
import math
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLAIN = str.maketrans({"“": '"', "”": '"', "’": "'", "‘": "'", "—": "--", "…": "...", "\r": None})
MARKS = ("#", "[", "*", "|", ">")
SAMPLE = slice(5_000, 105_000)
"""Characters of a book by which it is judged: not its preface, and not all of it."""


def books(path: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def cleaned(text: str) -> str:
    """Paragraphs of one line each, with an empty line between; no headings, no stage directions, no italics."""
    text = re.sub(r"[ \t]+", " ", text.translate(PLAIN))
    text = re.sub(r" ?\n ?", "\n", text.replace("_", ""))
    paragraphs = (paragraph.replace("\n", " ").strip() for paragraph in re.split(r"\n{2,}", text))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph and not paragraph.startswith(MARKS))


def difficulty(text: str) -> float:
    """Letters of a word and a tenth of the words of a sentence, on average."""
    sample = text[SAMPLE] or text
    words = sample.split()
    n_sentences = max(1, len(re.findall(r"[.!?]", sample)))
    return statistics.mean(map(len, words)) + 0.1 * len(words) / n_sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hardest", type=float, default=math.inf, help="leave out books of a higher difficulty")
    parser.add_argument("--most-bytes", type=int, default=40_000_000)
    given = parser.parse_args()
    seen: set[tuple[str, str]] = set()
    texts: list[str] = []
    for path in given.files:
        own = []
        for book in books(path):
            known = (str(book.get("author")), str(book.get("title")))
            if known not in seen:
                seen.add(known)
                own.append(cleaned(book["text"]))
        graded = sorted((difficulty(text), text) for text in own)
        texts += [text for grade, text in graded if grade <= given.hardest]
    n_bytes = 0
    with given.out.open("w", encoding="utf-8") as out:
        for text in texts:
            n_bytes += len(text.encode())
            if n_bytes > given.most_bytes:
                break
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
