"""What each model says to each prompt, kept so that no answer is made twice."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circius.base.errors import CirciusError, InvalidInputError
from circius.base.journal import Journal, read_journal
from circius.evals.chats import Chats, Said, Turn

OnDone = Callable[[int, int], object]
_ROUNDS_KEPT = 2


@dataclass(frozen=True)
class Prompt:
    """id: short, from the text alone, so that the same prompt has it in every file."""

    id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are made."""

    temperature: float = 0.7
    max_tokens: int = 512
    seed: int = 0


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file: a `.jsonl` has objects with `prompt`, any other a prompt a line; empty lines say nothing.

    Raises:
        InvalidInputError: it cannot be read, has none, or one of them twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is not UTF-8 text") from None
    texts = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if path.suffix == ".jsonl":
        texts = [(number, _prompt_in(line, f"{path}:{number}")) for number, line in texts]
    found: dict[str, Prompt] = {}
    for number, text in texts:
        own = Prompt(hashlib.sha256(text.encode()).hexdigest()[:16], text)
        if own.id in found:
            raise InvalidInputError(f"{path}:{number}: this prompt stands there twice")
        found[own.id] = own
    if not found:
        raise InvalidInputError(f"{path} has no prompts: write one a line")
    return list(found.values())


def answer_prompts(
    prompts: Sequence[Prompt],
    label: str,
    model: Chats,
    folder: Path,
    sampling: Sampling,
    *,
    on_done: OnDone = lambda done, total: None,
) -> dict[str, str]:
    """The model's answers by prompt id, those that are in the folder already included.

    Raises:
        InvalidInputError: the folder has answers under this label of another model, or made otherwise.
        CirciusError: some prompts could not be answered; what could is kept.
    """
    header = {
        "label": label,
        "model": dict(model.describe()),
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }
    with Journal(_file_of(folder, label), {"circius_arena_answers": header}) as journal:
        known: dict[str, str] = {row["prompt"]: row["answer"] for row in journal.rows}
        waiting = [prompt for prompt in prompts if prompt.id not in known]
        step = model.at_once * _ROUNDS_KEPT
        failures: list[CirciusError] = []
        on_done(len(prompts) - len(waiting), len(prompts))
        for begin in range(0, len(waiting), step):
            some = waiting[begin : begin + step]
            n_before = len(failures)
            for place, outcome in model.say([_turn(prompt, sampling) for prompt in some]):
                if isinstance(outcome, Said):
                    journal.append({"prompt": some[place].id, "answer": outcome.text})
                    known[some[place].id] = outcome.text
                else:
                    failures.append(outcome)
            if len(failures) - n_before == len(some):
                raise failures[-1]
            on_done(sum(prompt.id in known for prompt in prompts), len(prompts))
        if failures:
            raise CirciusError(
                f"{label} could not answer {len(failures)} prompts, the first because: {failures[0]}; all others are "
                "kept: run it again for the rest"
            )
        return {prompt.id: known[prompt.id] for prompt in prompts}


def answers_in(folder: Path) -> dict[str, dict[str, str]]:
    """All answers in a folder: by label, then by prompt id.

    Raises:
        InvalidInputError: a file there is none of ours.
    """
    found: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("answers-*.jsonl")):
        header, rows = read_journal(path)
        if "circius_arena_answers" not in header:
            raise InvalidInputError(f"{path} holds no answers of an arena")
        found[header["circius_arena_answers"]["label"]] = {row["prompt"]: row["answer"] for row in rows}
    return found


def _turn(prompt: Prompt, sampling: Sampling) -> Turn:
    return Turn(
        messages=({"role": "user", "content": prompt.text},),
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
    )


def _file_of(folder: Path, label: str) -> Path:
    """The file of a model's answers; its name is made of the label's digest, whatever characters the label has."""
    return folder / f"answers-{hashlib.sha256(label.encode()).hexdigest()[:12]}.jsonl"


def _prompt_in(line: str, where: str) -> str:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise InvalidInputError(f"{where} is not JSON: {error}") from None
    text = found.get("prompt") if isinstance(found, Mapping) else None
    if not isinstance(text, str) or not text.strip():
        raise InvalidInputError(f"{where} has no prompt, which must be a text")
    return text
