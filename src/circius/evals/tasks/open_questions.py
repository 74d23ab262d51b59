"""NaturalQuestions and TriviaQA, 5-shot, without any context: exact match of a short answer."""

from collections.abc import Sequence

from circius.evals.data.sets.naturalquestions import read_naturalquestions, read_naturalquestions_shots
from circius.evals.data.sets.open_question import OpenQuestionDoc
from circius.evals.data.sets.triviaqa import read_triviaqa, read_triviaqa_shots
from circius.evals.item import Answer, Item, Text, text_of
from circius.evals.scoring.answers import cut_answer, exact_match
from circius.evals.scoring.f1 import best_f1
from circius.evals.task import Judged, Sources, Task

N_SHOTS = 5
MAX_TOKENS = 32


def natural_questions(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_naturalquestions(sources.home)]


def natural_questions_shots(sources: Sources) -> str:
    return beginning(read_naturalquestions_shots(sources.home)[:N_SHOTS])


def trivia(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_triviaqa(sources.home)]


def trivia_shots(sources: Sources) -> str:
    return beginning(read_triviaqa_shots(sources.home)[:N_SHOTS])


def beginning(shots: Sequence[OpenQuestionDoc]) -> str:
    """What every prompt begins with."""
    return "Answer these questions:\n" + "".join(f"Q: {shot.question}\nA: {shot.shown}\n" for shot in shots)


def asks(item: Item, shots: str) -> tuple[Text]:
    doc: OpenQuestionDoc = item.doc
    return (Text(prompt=f"{shots}Q: {doc.question}\nA:", stop=("\n",), max_tokens=MAX_TOKENS),)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    doc: OpenQuestionDoc = item.doc
    said = cut_answer(text_of(answers))
    values = {"exact_match": float(exact_match(said, doc.answers)), "f1": best_f1(said, doc.answers)}
    return Judged(values=values, said=said, gold=list(doc.answers))


NATURALQUESTIONS = Task(
    name="naturalquestions",
    title="NaturalQuestions",
    about="5-shot, no context; greedy, exact match in LLaMA-1's form with any reference",
    items=natural_questions,
    data=("naturalquestions",),
    shots=natural_questions_shots,
    asks=asks,
    judge=judge,
    primary="exact_match",
    n_shots=N_SHOTS,
)
TRIVIAQA = Task(
    name="triviaqa",
    title="TriviaQA",
    about="5-shot, no context; greedy, exact match in LLaMA-1's form with any alias; Wikipedia's development set",
    items=trivia,
    data=("triviaqa",),
    shots=trivia_shots,
    asks=asks,
    judge=judge,
    primary="exact_match",
    n_shots=N_SHOTS,
)
