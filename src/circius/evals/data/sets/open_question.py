"""A question with several accepted answers: the form of NaturalQuestions and TriviaQA, and of their shots."""

import ast
import csv
import io
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from circius.base.errors import DataError
from circius.evals.data import store


@dataclass(frozen=True, kw_only=True)
class OpenQuestionDoc:
    """A question, the answers that are accepted, and which of them the set calls the answer, where it calls one so."""

    id: str
    question: str
    answers: tuple[str, ...]
    canonical: str | None

    @property
    def shown(self) -> str:
        """The answer to show where the question is an example: the canonical one, else the most central."""
        return most_central(self.answers) if self.canonical is None else self.canonical


def read_shots(path: str, home: Path | None, *, first_is_canonical: bool) -> list[OpenQuestionDoc]:
    """The questions of a file of DPR's: a question, a tab, a Python list of answers, CSV-quoted where need be.

    Raises:
        DataError: the file is not there or damaged.
    """
    text = store.read_text(path, home)
    docs = []
    for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter="\t"), start=1):
        if len(cells) != 2:
            raise DataError(f"{path} row {number}: expected a question, a tab and a list, got {len(cells)} cells")
        answers = _literal_list(cells[1], f"{path} row {number}")
        canonical = answers[0] if first_is_canonical else None
        question = _unquoted(cells[0])
        docs.append(OpenQuestionDoc(id=f"shot-{number}", question=question, answers=answers, canonical=canonical))
    return docs


def most_central(answers: Sequence[str]) -> str:
    """The alias that is most like all the others: the one with the highest mean F1 of words.

    TriviaQA's lists of aliases stand in no order; the first may be an emoji or a misspelling. Of equals, the shorter
    one, then the one that comes first; case and punctuation do not count.

    >>> most_central(["🚁", "Helicopters", "Cargo helicopter", "Helicopter", "Pescara (helicopter)"])
    'Helicopter'
    """
    words = [frozenset(_words(answer)) for answer in answers]
    times = Counter(words)

    def likeness(one: frozenset[str]) -> float:
        return sum(n * len(one & other) / (len(one) + len(other)) for other, n in times.items() if one & other)

    likenesses = {one: likeness(one) for one in times}
    return answers[max(range(len(answers)), key=lambda place: (likenesses[words[place]], -len(answers[place])))]


def _unquoted(question: str) -> str:
    """A question without a second layer of CSV quotes, which some of TriviaQA's still wear.

    >>> _unquoted('"Who said ""No""?"'), _unquoted('"No" is from which film?')
    ('Who said "No"?', '"No" is from which film?')
    """
    inside = question[1:-1]
    is_wrapped = question == f'"{inside}"' and '""' in inside and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if is_wrapped else question


def _words(answer: str) -> list[str]:
    bare = ("".join(" " if char in string.punctuation else char for char in answer.lower())).split()
    return [word for word in bare if any(char.isalnum() for char in word)]


def _literal_list(cell: str, where: str) -> tuple[str, ...]:
    try:
        answers = ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise DataError(f"{where}: no Python list ({cell!r:.80})") from error
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise DataError(f"{where}: expected a list of texts with one at least, got {cell!r:.80}")
    return tuple(answers)
