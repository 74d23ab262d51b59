"""A store with a few items of every benchmark, all of them written for these tests."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from circius.evals.data.catalogue import find_part
from circius.evals.data.sets.agieval import SETS
from circius.evals.data.sets.bbh import TASKS
from circius.evals.data.store import write

N = 3

HELLASWAG = {
    "activity_label": "Baking bread",
    "ctx_a": "[header] How to bake bread [title] Knead the dough.",
    "ctx_b": "the Baker",
    "endings": ["puts it into  the oven.", "[title] Sells the oven.", "reads [substeps] a book.", "flies away."],
    "label": "0",
}
WINOGRANDE = {
    "sentence": "Ann thanked Beth because _ had helped.", "option1": "Ann", "option2": "Beth", "answer": "2",
}  # fmt: skip
PIQA = {"goal": "Open a jar", "sol1": "Turn the lid.", "sol2": "Shout at the lid.", "label": 0}
SIQA = {
    "context": "Kim lent Lee a pen.", "question": "How does Lee feel?", "answerA": "cheated", "answerB": "thankful",
    "answerC": "asleep", "label": "2",
}  # fmt: skip
QUESTION = {"id": "q", "question": "What do bees make?", "choices": ["honey", "milk", "paper", "salt"], "gold": 0}
FIVE = {**QUESTION, "choices": [*QUESTION["choices"], "steel"]}
NQ = {"question": "who wrote Emma", "answer": ["Jane Austen", "Austen"]}
AUSTEN = {"value": "Austen", "aliases": ["Austen"]}
BOOLQ = {"passage": "Snow is white.", "question": "is snow white", "answer": True}
QUAC = {
    "passage": "Ada was born in Turin. She sailed. ",
    "questions": ["where was Ada born?", "did she sail?", "what was her hat like?"],
    "references": [["Turin", "in Turin"], ["She sailed", "sailed"], ["CANNOTANSWER"]],
}
GSM8K = {"question": "Tom has 3 pears and buys 4. How many has he?", "answer": "3 + 4 = <<3+4=7>>7.\n#### 7"}
MATH = {
    "problem": "What is $1 + 1$?", "level": "Level 1", "type": "Algebra", "solution": "It is $\\boxed{2}$.",
}  # fmt: skip
HUMANEVAL = {
    "task_id": "Own/0",
    "prompt": 'def double(x):\n    """Twice x."""\n',
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "double",
}
MMLU = {"question": "Which is a colour? ", "choices": ["red", "ten", "run", "sad"], "answer": 0}


def small_store(home: Path) -> Path:
    """The folder, with every set in it."""
    lines = {
        "hellaswag/validation.jsonl.gz": _times(HELLASWAG),
        "winogrande/validation.jsonl.gz": _times(WINOGRANDE),
        "piqa/validation.jsonl.gz": _times(PIQA),
        "siqa/validation.jsonl.gz": _times(SIQA),
        "openbookqa/test.jsonl.gz": _numbered(QUESTION),
        "arc_easy/test.jsonl.gz": _numbered(QUESTION),
        "arc_challenge/test.jsonl.gz": _numbered(QUESTION),
        "commonsenseqa/validation.jsonl.gz": _numbered(FIVE),
        "naturalquestions/validation.jsonl.gz": _times(NQ),
        "triviaqa/validation.jsonl.gz": [
            {"question_id": f"t{n}", "question": "Who wrote Emma?", "answer": AUSTEN} for n in range(N)
        ],
        "boolq/validation.jsonl.gz": _times(BOOLQ),
        "quac/quac_first3turns.jsonl": _times(QUAC),
        "gsm8k/test.jsonl.gz": _times(GSM8K),
        "math/test.jsonl.gz": [*_times(MATH), *_times({**MATH, "type": "Geometry"})],
        "humaneval/test.jsonl.gz": [{**HUMANEVAL, "task_id": f"Own/{n}"} for n in range(N)],
        "mmlu/test.jsonl.gz": [{**MMLU, "subject": own} for own in ("high_school_art", "music") for _ in range(N)],
        "mmlu/dev.jsonl.gz": [{**MMLU, "subject": own} for own in ("high_school_art", "music") for _ in range(5)],
        **{f"agieval/{name}.jsonl": [_exam(name, n) for n in range(N)] for name in SETS},
    }  # fmt: skip
    for path, rows in lines.items():
        _put(home, path, "".join(json.dumps(row) + "\n" for row in rows))
    for name in ("nq", "trivia"):
        folder = {"nq": "naturalquestions", "trivia": "triviaqa"}[name]
        pool = "".join(f"who was number {n}\t['Number {n}', 'No. {n}']\n" for n in range(7))
        _put(home, f"{folder}/fewshot_dpr.{name}.dev.txt", pool)
    _put(home, "mbpp/sanitized-mbpp.json", json.dumps([_program(n) for n in (2, 3, 4, 6, 11, 12, 600)]))
    _put(home, "agieval/few_shot_prompts.csv", _exam_shots())
    for task in TASKS:
        rows = [{"input": f"Is {n} small?", "target": "Yes" if n < 2 else "No"} for n in range(N)]
        _put(home, f"bbh/bbh/{task}.json", json.dumps({"canary": "none", "examples": rows}))
        _put(home, f"bbh/cot-prompts/{task}.txt", _prompt_file(task))
    return home


def _put(home: Path, path: str, content: str) -> None:
    write(find_part(path), content.encode(), home, accept_changed=True)


def _times(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row] * N


def _numbered(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{**row, "id": f"q{n}"} for n in range(N)]


def _program(number: int) -> dict[str, Any]:
    return {
        "source_file": "own", "task_id": number, "prompt": f"Write a function to add {number}.",
        "code": f"def add(x):\n    return x + {number}", "test_imports": [],
        "test_list": [f"assert add(1) == {1 + number}"],
    }  # fmt: skip


def _exam(name: str, n: int) -> dict[str, Any]:
    passage = "A passage." if name in ("lsat-rc", "sat-en") else None
    return {"passage": passage, "question": f"What is {n}?", "options": ["(A)one", "(B)two", "(C)three"], "label": "B",
            "other": None}  # fmt: skip


def _exam_shots() -> str:
    names = [name for name in SETS if name != "sat-en-without-passage"]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["", *names])
    for n in range(1, 4):
        writer.writerow([f"sample {n}", *(repr({**_exam(name, n), "other": None}) for name in names)])
        writer.writerow([f"explanation {n}", *("because" for _ in names)])
    return out.getvalue()


def _prompt_file(task: str) -> str:
    shots: Iterable[str] = (
        f"\n\nQ: Is {n} large?\nA: Let's think step by step.\n{n} is not. So the answer is No." for n in range(3)
    )
    return f"a canary\n-----\nAbout {task}." + "".join(shots)
