"""The folder of a run: what was run, on what, and what came out. No torch here.

RUN/record.json      the model, the tasks with a digest of their questions, the seed: what decides every number
RUN/items/TASK.jsonl a line an item
RUN/results.json     the figures
RUN/report.html      the same to look at
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from circius.base.errors import CirciusError, InvalidInputError
from circius.evals.lines import ResultLines
from circius.weights.target import new_file

FORM = 1
"""Of these files."""


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def lines(self, task: str) -> ResultLines:
        return ResultLines(self.path / "items" / f"{task}.jsonl")

    def read_record(self) -> dict[str, Any]:
        """Raises InvalidInputError if this is the folder of no run."""
        return self._read("record.json")

    def read_results(self) -> dict[str, Any]:
        """Raises InvalidInputError if no run has come to its end here."""
        return self._read("results.json")

    def has_record(self) -> bool:
        """Whether a run began here.

        Raises:
            CirciusError: there are items, and nothing says which model's they are.
        """
        if (self.path / "record.json").is_file():
            return True
        if any((self.path / "items").glob("*.jsonl")):
            raise CirciusError(
                f"{self.path} has items but no record.json, which says what they belong to: give another --out, or "
                f"delete {self.path / 'items'}"
            )
        return False

    def write_record(self, record: Mapping[str, Any]) -> None:
        self._write("record.json", record)

    def write_results(self, results: Mapping[str, Any]) -> None:
        self._write("results.json", results)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from writing here; the system lets go of it when this one ends, however it does.

        Raises:
            CirciusError: another process has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                import fcntl
            except ModuleNotFoundError:  # Windows
                yield
                return
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CirciusError(
                    f"another process is writing to {self.path}: wait for it, or give another --out"
                ) from error
            yield

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidInputError(
                f"{self.path} holds no {name}: give the folder of a run of `circius eval`"
            ) from error
        except ValueError as error:
            raise CirciusError(f"{path} is damaged: {error}") from error
        if not isinstance(found, dict) or found.get("form") != FORM:
            raise CirciusError(f"{path} was written by another version of circius: it cannot be read")
        return found

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps({"form": FORM, **content}, ensure_ascii=False, indent=1) + "\n"
        with new_file(self.path / name, n_bytes=len(text.encode()), overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


def check_continues(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Does nothing if a run may go on where another was: the same model, and the same questions for the same task.

    Raises:
        InvalidInputError: it is another run; the message says by what.
    """
    same_files = old["model"].get("sha256") == new["model"].get("sha256") is not None
    for name in sorted({*old["model"], *new["model"]}):
        if name == "name" and same_files:
            continue  # however it was called
        before, now = old["model"].get(name), new["model"].get(name)
        if before != now:
            raise InvalidInputError(
                f"the run in this folder has {name} {_short(before)}, and this one {_short(now)}: "
                "give another --out, or the same options"
            )
    for task, own in new["tasks"].items():
        before = old["tasks"].get(task)
        if before is None:
            continue
        for name in ("version", "n_items", "seed", "questions_sha256"):
            if before[name] != own[name]:
                raise InvalidInputError(
                    f"the run in this folder asks other questions of {task} ({name}: {_short(before[name])}, now "
                    f"{_short(own[name])}): give another --out, or the same --limit, --seed and sampling"
                )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
