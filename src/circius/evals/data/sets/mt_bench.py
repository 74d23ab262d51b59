"""MT-Bench: 80 conversations of two turns, FastChat's references by GPT-4, and its judge prompts."""

from dataclasses import dataclass
from pathlib import Path

from circius.evals.data.row import Row, json_lines


@dataclass(frozen=True, kw_only=True)
class MtBenchDoc:
    """Two turns of a user, and a reference answer to each where FastChat's judge is given one."""

    id: str
    category: str
    turns: tuple[str, str]
    reference: tuple[str, str] | None


@dataclass(frozen=True, kw_only=True)
class JudgePrompt:
    """What a judge is told: the system prompt and a template with {question}, {answer} and their like."""

    name: str
    kind: str
    system: str
    template: str


def read_mt_bench(home: Path | None = None) -> list[MtBenchDoc]:
    """The 80 questions, 10 of each of eight categories.

    The references are those of reference_answer/gpt-4.jsonl (30), as in FastChat; the field `reference` that 39
    questions have of their own is not used by its judge, and not here.
    """
    references = {
        row.whole("question_id"): _pair(row.rows("choices")[0], "turns")
        for row in json_lines("mt_bench/reference_answer/gpt-4.jsonl", home)
    }
    return [
        MtBenchDoc(
            id=str(row.whole("question_id")),
            category=row.text("category"),
            turns=_pair(row, "turns"),
            reference=references.get(row.whole("question_id")),
        )
        for row in json_lines("mt_bench/question.jsonl", home)
    ]


def read_judge_prompts(home: Path | None = None) -> dict[str, JudgePrompt]:
    """FastChat's eight judge prompts, by name."""
    return {
        row.text("name"): JudgePrompt(
            name=row.text("name"),
            kind=row.text("type"),
            system=row.text("system_prompt"),
            template=row.text("prompt_template"),
        )
        for row in json_lines("mt_bench/judge_prompts.jsonl", home)
    }


def _pair(row: Row, name: str) -> tuple[str, str]:
    turns = row.texts(name)
    if len(turns) != 2:
        raise row.wrong(f"MT-Bench has two turns, got {len(turns)}")
    return turns[0], turns[1]
