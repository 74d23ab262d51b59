"""TriviaQA without contexts: trivia questions whose answers come with all their aliases."""

from pathlib import Path

from circius.evals.data.row import Row, json_lines
from circius.evals.data.sets.open_question import OpenQuestionDoc, read_shots


def read_triviaqa(home: Path | None = None) -> list[OpenQuestionDoc]:
    """The 7,993 items of the Wikipedia domain's development split; the answer shown is the set's canonical one."""
    return [_doc(row) for row in json_lines("triviaqa/validation.jsonl.gz", home)]


def read_triviaqa_shots(home: Path | None = None) -> list[OpenQuestionDoc]:
    """8,837 other questions, none of them in the development split, to take shots from.

    Their lists of aliases name no canonical answer: the most central alias is shown (`open_question.most_central`).
    """
    return read_shots("triviaqa/fewshot_dpr.trivia.dev.txt", home, first_is_canonical=False)


def _doc(row: Row) -> OpenQuestionDoc:
    answer = row.row("answer")
    aliases, value = answer.texts("aliases"), answer.text("value")
    answers = aliases if value in aliases else (value, *aliases)
    return OpenQuestionDoc(id=row.text("question_id"), question=row.text("question"), answers=answers, canonical=value)
