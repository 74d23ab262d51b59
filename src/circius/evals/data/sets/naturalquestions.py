"""NaturalQuestions, the open-domain form: what people asked a search engine, with short answers."""

from pathlib import Path

from circius.evals.data.row import Row, json_lines
from circius.evals.data.sets.open_question import OpenQuestionDoc, read_shots


def read_naturalquestions(home: Path | None = None) -> list[OpenQuestionDoc]:
    """The 3,610 items of the development split."""
    return [_doc(row, place) for place, row in enumerate(json_lines("naturalquestions/validation.jsonl.gz", home))]


def read_naturalquestions_shots(home: Path | None = None) -> list[OpenQuestionDoc]:
    """8,757 other questions, none of them in the development split, to take shots from; the first answer is shown."""
    return read_shots("naturalquestions/fewshot_dpr.nq.dev.txt", home, first_is_canonical=True)


def _doc(row: Row, place: int) -> OpenQuestionDoc:
    answers = row.texts("answer")
    if not answers:
        raise row.wrong("a question needs at least one answer")
    return OpenQuestionDoc(id=str(place), question=row.text("question"), answers=answers, canonical=answers[0])
