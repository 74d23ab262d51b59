"""QuAC, 0-shot: questions about a passage, with the dialogue before them; word F1 by the official rules."""

from collections.abc import Sequence
from dataclasses import dataclass

from circius.evals.data.sets.quac import QuacDialogue, read_quac
from circius.evals.item import Answer, Item, Text, text_of
from circius.evals.scoring.answers import cut_answer
from circius.evals.scoring.f1 import CANNOT_ANSWER, QUAC_MIN_HUMAN_F1, human_f1, quac_f1, quac_span
from circius.evals.task import Judged, Sources, Task

MAX_TOKENS = 32
_NOT_TOLD = "Cannot answer"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A dialogue, and which of its questions is asked."""

    dialogue: QuacDialogue
    place: int


def items(sources: Sources) -> list[Item]:
    """Every question of every dialogue; those of one dialogue belong together."""
    return [
        Item(id=f"{dialogue.id}/{place}", doc=Asked(dialogue=dialogue, place=place), cluster=dialogue.id)
        for dialogue in read_quac(sources.home).dialogues
        for place in range(len(dialogue.turns))
    ]


def asks(item: Item, _: object) -> tuple[Text]:
    """The passage, the turns before with the answers of people, and the question."""
    asked: Asked = item.doc
    dialogue = asked.dialogue
    head = [
        f"{name}: {text}\n"
        for name, text in (
            ("Title", dialogue.title),
            ("Background", dialogue.background),
            ("Section", dialogue.section),
            ("Context", dialogue.passage.strip()),
        )
        if text
    ]
    before = [f"\nQuestion: {turn.question}\nAnswer: {_shown(turn.shown)}\n" for turn in dialogue.turns[: asked.place]]
    question = dialogue.turns[asked.place].question
    prompt = "".join([*head, *before, f"\nQuestion: {question}\nAnswer:"])
    return (Text(prompt=prompt, stop=("\n",), max_tokens=MAX_TOKENS),)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    asked: Asked = item.doc
    turn = asked.dialogue.turns[asked.place]
    said = quac_span(cut_answer(text_of(answers)))
    if human_f1(turn.references) < QUAC_MIN_HUMAN_F1:
        return Judged(
            values={},
            said=said,
            gold=list(turn.references),
            left_out="people do not agree on the answer (F1 below 0.4)",
        )
    return Judged(values={"f1": quac_f1(said, turn.references)}, said=said, gold=list(turn.references))


def _shown(answer: str) -> str:
    return _NOT_TOLD if answer == CANNOT_ANSWER else answer


TASK = Task(
    name="quac",
    title="QuAC",
    about="0-shot; passage, the turns before with gold answers, greedy, word F1 with each reference left out once",
    items=items,
    asks=asks,
    judge=judge,
    data=("quac",),
    primary="f1",
    notes=(
        "without the official val_v0.2.json this is the first-3-turn subset: 3,000 of 7,354 questions",
        "Meta's QuAC is 1-shot, and does not compare",
    ),
)
