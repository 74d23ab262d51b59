"""A file of results that grows by a line an item and survives being cut off anywhere. No torch here."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circius.base.errors import CirciusError
from circius.evals.item import Answer, ChoicesAnswer, PassageAnswer, TextAnswer
from circius.evals.questions import Question, describe_ask
from circius.evals.task import Judged, Scored


@dataclass(frozen=True, kw_only=True)
class Outcome(Scored):
    """The values of an item, why it does not count if it does not, and the tokens that its prompts lost."""

    left_out: str = ""
    n_cut: int = 0


class ResultLines:
    """The lines of one task. A line that a kill has cut off is removed when the file is opened for writing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> Iterator[dict[str, Any]]:
        """The whole lines, one after the other, in the order in which they were written.

        Raises:
            CirciusError: the file is damaged in another way than a kill would.
        """
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.endswith(b"\n"):
                    return
                try:
                    line = json.loads(raw)
                except ValueError as error:
                    raise self._damaged(number, str(error)) from error
                if not isinstance(line, dict):
                    raise self._damaged(number, "no JSON object")
                yield line

    def outcomes(self) -> list[Outcome]:
        """What became of each item, without what was asked and answered: that can be a lot.

        Raises:
            CirciusError: as `rows`, or an item stands there twice.
        """
        found = [self._outcome(number, line) for number, line in enumerate(self.rows(), start=1)]
        if len({one.id for one in found}) < len(found):
            twice = next(own for own, n in Counter(one.id for one in found).items() if n > 1)
            raise CirciusError(f"{self.path} has item {twice!r} twice: delete the file")
        return found

    def _outcome(self, number: int, line: Mapping[str, Any]) -> Outcome:
        try:
            return _outcome(line)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._damaged(number, f"{type(error).__name__}: {error}") from error

    def _damaged(self, number: int, why: str) -> CirciusError:
        return CirciusError(
            f"{self.path} line {number} is damaged ({why}): delete the file, and the same command makes it anew"
        )

    def mend(self) -> None:
        """Removes a last line that was not written to its end."""
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Adds lines, and waits until they are on the disk."""
        text = "".join(f"{json.dumps(line, ensure_ascii=False, allow_nan=False)}\n" for line in lines)
        if not text:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())


def line_of(question: Question, answers: Sequence[Answer], judged: Judged) -> dict[str, Any]:
    """All that is known of an item: what was asked, the tokens, what came back and what it is worth."""
    item = question.item
    line: dict[str, Any] = {"id": item.id}
    if item.part:
        line["part"] = item.part
    if item.cluster:
        line["cluster"] = item.cluster
    line |= {"values": dict(judged.values), "said": judged.said, "gold": judged.gold}
    if judged.left_out:
        line["left_out"] = judged.left_out
    line["asks"] = [
        {**describe_ask(ask), **_described(answer)} for ask, answer in zip(question.asks, answers, strict=True)
    ]
    return line


def n_cut(line: Mapping[str, Any]) -> int:
    """The tokens that had to be left out of an item's prompts."""
    return max((ask.get("n_cut", 0) for ask in line["asks"]), default=0)


def _outcome(line: Mapping[str, Any]) -> Outcome:
    return Outcome(
        id=str(line["id"]),
        values={str(name): float(value) for name, value in line["values"].items()},
        part=line.get("part", ""),
        cluster=line.get("cluster", ""),
        left_out=line.get("left_out", ""),
        n_cut=n_cut(line),
    )


def _described(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, ChoicesAnswer):
        described: dict[str, Any] = {"logprobs": answer.logprobs, "is_greedy": answer.is_greedy}
        if answer.unconditional is not None:
            described["unconditional_logprobs"] = answer.unconditional
        if answer.context_ids:
            is_one = len(set(answer.context_ids)) == 1
            described["context_ids"] = answer.context_ids[0] if is_one else answer.context_ids
            described["continuation_ids"] = answer.continuation_ids
        return described | ({"n_cut": answer.n_cut} if answer.n_cut else {})
    if isinstance(answer, TextAnswer):
        samples = [
            {"text": own.text, "ids": own.ids, "logprob": own.logprob, "finish": own.finish} for own in answer.samples
        ]
        described = {"prompt_ids": answer.prompt_ids, "samples": samples}
        return described | ({"n_cut": answer.n_cut} if answer.n_cut else {})
    assert isinstance(answer, PassageAnswer)
    return {"logprob": answer.logprob, "squares": answer.squares, "n_tokens": answer.n_tokens}
