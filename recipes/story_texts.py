"""Books as the small `story` model reads them: lines joined to paragraphs, quotation marks and dashes made plain.

    python recipes/story_texts.py children.jsonl.gz others.jsonl.gz --out texts.jsonl

takes files of JSON lines with a text each (and author and title, by which a book in two files is taken once), and
writes one `{"text": ...}` a line. All books of the first file come twice, of the others once, the easiest first, up to
`--most-bytes` in all: a model of a few million parameters gains more from plain prose than from more of it.
"""

import argparse
import gzip
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLAIN = str.maketrans({"“": '"', "”": '"', "’": "'", "‘": "'", "—": "--", "…": "...", "\r": None})
SAMPLE = slice(5_000, 105_000)
"""Characters of a book by which it is judged: not its preface, and not all of it."""


def books(path: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def cleaned(text: str) -> str:
    """Paragraphs of one line each, with an empty line between."""
    text = re.sub(r"[ \t]+", " ", text.translate(PLAIN))
    text = re.sub(r" ?\n ?", "\n", text)
    return re.sub(r"\n{2,}", "\n\n", re.sub(r"(?<!\n)\n(?!\n)", " ", text)).strip()


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
    parser.add_argument("--most-bytes", type=int, default=40_000_000)
    given = parser.parse_args()
    seen: set[tuple[str, str]] = set()
    chosen: list[list[str]] = []
    for path in given.files:
        own = []
        for book in books(path):
            known = (str(book.get("author")), str(book.get("title")))
            if known not in seen:
                seen.add(known)
                own.append(cleaned(book["text"]))
        chosen.append(sorted(own, key=difficulty))
    texts = chosen[0] * 2 + [text for own in chosen[1:] for text in own]
    n_bytes = 0
    with given.out.open("w", encoding="utf-8") as out:
        for text in texts:
            n_bytes += len(text.encode())
            if n_bytes > given.most_bytes:
                break
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
